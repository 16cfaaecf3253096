"""``fluxsr export``: what it writes loads in a pipeline and gives the picture of the parts that went in."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.cli.main import main
from fluxsr.inference.export import export_model
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.inference.upscaler import Upscaler
from fluxsr.models import FluxBackbone, LatentAutoencoder, PixelAutoencoder, StudentRecord, load_flux
from fluxsr.models.autoencoders import wrap_autoencoder
from fluxsr.models.folded import FoldedFluxTransformer
from fluxsr.models.sources import ModelSource
from fluxsr.models.weight_files import read_safetensors
from fluxsr.sizes import gigabytes
from tests.models.conftest import perturb, tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.models.test_flux2 import tiny_kl2


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def student(tmp_path):
    """A student with its adapter in a file, on the base of the fixture ``pipeline``."""
    backbone = FluxBackbone(tiny_transformer(guidance_embeds=True), tiny_prompt(), 3.5)
    backbone.add_lora(rank=2)
    perturb(backbone)
    backbone.save_lora(tmp_path / "adapter.safetensors")
    return backbone


@pytest.mark.parametrize("fold", ["true", "false"])
def test_a_base_and_its_adapter_become_one_pipeline(tmp_path, pipeline, student, image, fold, capsys):
    out = tmp_path / "out"
    options = {"model": pipeline, "lora": tmp_path / "adapter.safetensors", "prompt": pipeline / "prompt.safetensors"}
    numbers = {"guidance": 3.5, "start_time": 0.3, "window": 48, "fold": fold, "trained": "30k steps"}
    numbers["base_model"] = "black-forest-labs/FLUX.1-dev"
    main(["export", "--output", str(out), *(f"--{key}={value}" for key, value in (options | numbers).items())])
    loaded = FluxSRPipeline.from_pretrained(out)
    assert isinstance(loaded.transformer, FoldedFluxTransformer) == (fold == "true")
    expected = Upscaler(student, LatentAutoencoder(tiny_kl()), 0.3, window=48)(image, scale=2)
    torch.testing.assert_close(loaded(image, scale=2).images[0], expected, rtol=1e-4, atol=1e-4)
    printed = capsys.readouterr().out
    assert "flux-1-dev-non-commercial-license" in printed and "Commercial use is not allowed" in printed
    card = (out / "README.md").read_text()
    assert "license_name: flux-1-dev-non-commercial-license" in card and "30k steps" in card
    assert not [file for file in out.rglob("*.json") if str(tmp_path) in file.read_text()]


@pytest.mark.parametrize("fold", [True, False])
def test_a_student_of_klein_may_be_sold(tmp_path, pipeline2, image, fold):
    """FLUX.2 without text: the folded model has no text stream, and the card says Apache-2.0."""
    student = FluxBackbone(tiny_transformer(family="flux.2"))
    student.add_lora(rank=2)
    perturb(student)
    student.save_lora(tmp_path / "adapter.safetensors")
    base = "black-forest-labs/FLUX.2-klein-base-4B"
    made = export_model(
        str(tmp_path / "out"), str(pipeline2), str(tmp_path / "adapter.safetensors"), start_time=0.3, window=48, fold=fold,
        base_model=base,
    )  # fmt: skip
    assert (made.exported < 0.6 * made.parameters) == fold
    expected = Upscaler(student, wrap_autoencoder(tiny_kl2()), 0.3, window=48)(image, scale=2)
    loaded = FluxSRPipeline.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(loaded(image, scale=2).images[0], expected, rtol=1e-4, atol=1e-4)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: apache-2.0" in card and f"base_model: {base}" in card and "Commercial use is allowed" in card


def test_an_adapter_brings_its_own_start_time(tmp_path, pipeline, student, capsys):
    student.save_lora(tmp_path / "timed.safetensors", record=student.record.given(start_time=0.4))
    options = {"model": pipeline, "lora": tmp_path / "timed.safetensors", "prompt": pipeline / "prompt.safetensors"}
    options |= {"guidance": 3.5, "window": 48}
    main(["export", f"--output={tmp_path / 'out'}", *(f"--{key}={value}" for key, value in options.items())])
    assert "folded at t = 0.4" in capsys.readouterr().out
    assert FluxSRPipeline.from_pretrained(tmp_path / "out").record.start_time == 0.4


def test_the_shipped_student_folds_to_fewer_bytes(tmp_path, image, capsys):
    main(["export", "-o", str(tmp_path / "out")])
    before, after, written = capsys.readouterr().out.splitlines()[-3:]
    numbers = [int(re.search(r"([\d,]+) parameters", line)[1].replace(",", "")) for line in (before, after)]
    transformer = load_flux("nano-student", trainable="none").transformer
    assert numbers[0] == sum(parameter.numel() for parameter in transformer.parameters())
    folded = FluxSRPipeline.from_pretrained(tmp_path / "out").transformer.state_dict().values()
    assert numbers[1] == sum(tensor.numel() for tensor in folded)
    # What goes, of width D: the modulation of eight blocks and of the last norm, the embedders of time (256 numbers), pooled
    # prompt and prompt (16 each). What comes: the modulation's constants, and the pooled prompt that they were made with.
    D = 192
    modulation = 8 * 3 * (D * D + D) + 2 * (D * D + D)
    embedders = (256 * D + D) + (D * D + D) + (16 * D + D) + (D * D + D) + (16 * D + D)
    assert numbers[0] - numbers[1] == modulation + embedders - (8 * 3 + 2) * D - 16
    assert "9.4 MB in float16" in before and "folded at t = 0.25" in after and "apache-2.0" in written
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert f"{gigabytes(size)} on disk" in written


@pytest.mark.parametrize("fold", [True, False])
def test_a_single_file(tmp_path, image, fold):
    file = tmp_path / "out.safetensors"
    export_model(str(file), fold=fold, dtype="float32", start_time=0.3)
    _, metadata = read_safetensors(file)
    assert (metadata["start_time"], metadata["license"], metadata["base"]) == ("0.3", "apache-2.0", "nano")
    backbone = load_flux(str(file), trainable="none")
    whole = load_flux("nano-student", trainable="none")
    expected = Upscaler(whole, PixelAutoencoder(), 0.3, window=64, color_fix="none")(image)
    result = Upscaler(backbone, PixelAutoencoder(), 0.3, window=64, color_fix="none")(image)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_overwritten_unless_told(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(ValueError, match=r"exists; give another output, or --overwrite"):
        export_model(str(out))
    assert (out / "precious").read_text() == "x"
    export_model(str(out), overwrite=True)
    assert not (out / "precious").exists() and (out / "model_index.json").is_file()


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def fails(self, folder, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(FluxSRPipeline, "save_pretrained", fails)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("x")
    with pytest.raises(OSError, match="no space left"):
        export_model(str(tmp_path / "out"), overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "missing.safetensors"], "missing.safetensors does not exist"),
        (["--quantize", "int3"], "int3"),
        (["--guidance", "3.5"], "takes no guidance"),
        (["--start_time", "2"], "t must lie in"),
        (["--autoencoder", "VAE"], "48 latent channels and the autoencoder 4"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, pipeline, capsys, arguments, message):
    arguments = [str(pipeline / "vae") if argument == "VAE" else argument for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--output", str(tmp_path / "out"), *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_base_without_vae_asks_for_one(tmp_path, pipeline):
    with pytest.raises(ValueError, match="has no autoencoder of its own: give one"):
        export_model(str(tmp_path / "out"), model=str(pipeline / "transformer"), guidance=3.5, start_time=0.25)


def test_a_file_with_the_transformer_alone_needs_no_autoencoder(tmp_path, pipeline):
    file = tmp_path / "alone.safetensors"
    export_model(str(file), model=str(pipeline / "transformer"), guidance=3.5, start_time=0.25)
    assert ModelSource(file).record.start_time == 0.25 and not ModelSource(file).record.autoencoder


# ---- quantized weights -----------------------------------------------------------------------------------------


def test_the_transformer_is_loaded_again_with_the_configuration(tmp_path, monkeypatch):
    """With a stand-in for the quantizer: diffusers quantizes while loading."""
    asked = []
    real = FoldedFluxTransformer.from_pretrained.__func__

    def from_pretrained(cls, path, quantization_config=None, **kwargs):
        asked.append((quantization_config, kwargs["torch_dtype"], json.loads((path / "config.json").read_text())["t"]))
        return real(cls, path, **kwargs)

    monkeypatch.setattr(
        "fluxsr.inference.export.quantization_config", lambda kind, family: f"a configuration of {kind}"
    )
    monkeypatch.setattr(FoldedFluxTransformer, "from_pretrained", classmethod(from_pretrained))
    export_model(str(tmp_path / "out"), quantize="fp8", dtype="bfloat16")
    assert asked == [("a configuration of fp8", torch.bfloat16, 0.25)]
    assert (tmp_path / "out" / "transformer" / "config.json").is_file()


def test_quantized_models_are_folders(tmp_path):
    with pytest.raises(ValueError, match="quantized models are written as folders"):
        export_model(str(tmp_path / "out.safetensors"), quantize="int8")


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantized_weights_are_close(tmp_path, kind):
    """The real thing, where torchao is installed."""
    pytest.importorskip("torchao")
    from skimage import data

    photo = Image.fromarray(data.astronaut()[100:140, 200:250])
    export_model(str(tmp_path / "half"), dtype="bfloat16")
    export_model(str(tmp_path / kind), dtype="bfloat16", quantize=kind)
    results = []
    for name in ("half", kind):
        loaded = FluxSRPipeline.from_pretrained(tmp_path / name, torch_dtype=torch.bfloat16)
        results.append(np.asarray(loaded(photo).images[0], dtype=float))
    kinds = {
        name: type(module.weight.data).__name__
        for name, module in loaded.transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert {name for name, type_name in kinds.items() if type_name == "Tensor"} == {"x_embedder", "proj_out"}
    assert kinds["single_transformer_blocks.0.proj_out"] != "Tensor"
    assert 0 < np.square(results[0] - results[1]).mean() < 255**2 / 10**4.5  # 45 dB
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).rglob("*.safetensors")) for name in ("half", kind)]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_file_in_bfls_layout_is_whole_and_fused(tmp_path, pipeline, student):
    out = tmp_path / "bfl.safetensors"
    options = {"model": str(pipeline), "lora": str(tmp_path / "adapter.safetensors"), "start_time": 0.25}
    options["prompt"] = str(pipeline / "prompt.safetensors")
    made = export_model(str(out), layout="bfl", **options)
    state, metadata = read_safetensors(out)
    assert not made.folded and metadata["start_time"] == "0.25"
    fused = export_model(str(tmp_path / "diffusers.safetensors"), fold=False, **options)
    theirs = read_safetensors(fused.path)[0]
    assert sum(tensor.numel() for tensor in state.values()) == sum(tensor.numel() for tensor in theirs.values())
    assert torch.equal(state["single_blocks.1.linear2.weight"], theirs["single_transformer_blocks.1.proj_out.weight"])


def test_bfls_layout_is_no_folder(tmp_path):
    with pytest.raises(ValueError, match="one file"):
        export_model(str(tmp_path / "folder"), layout="bfl")


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
@pytest.mark.parametrize(("stated", "given", "expected"), [(None, None, 128), (48, None, 48), (48, 64, 64)])
def test_the_window_is_the_given_one_else_what_the_file_states(tmp_path, name, stated, given, expected):
    record = StudentRecord(start_time=0.25, window=stated)
    load_flux("nano-student", trainable="none").save(tmp_path / "mine.safetensors", record=record)
    made = export_model(str(tmp_path / name), str(tmp_path / "mine.safetensors"), start_time=0.3, window=given)
    assert Upscaler.from_pretrained(made.path, device="cpu").window == expected
