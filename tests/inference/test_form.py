"""A model in a limited memory: planned before it is loaded, as it is measured; offloaded weights give the same bits."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny

from fluxsr.inference import Upscaler
from fluxsr.inference.form import Form, MemoryPlan, choose_form, planned_peak
from fluxsr.inference.memory import memory_limit
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import FluxBackbone, LatentAutoencoder, StudentRecord, fold_modulation, load_autoencoder, load_flux
from tests.models.conftest import tiny_transformer
from tests.models.test_autoencoders import tiny_kl

CPU = torch.device("cpu")


def model(device: str = "cpu") -> tuple[FluxBackbone, LatentAutoencoder]:
    """A tiny model with more weights than activations."""
    with torch.device(device):
        velocity = FluxBackbone(tiny_transformer(num_layers=3, num_single_layers=5, guidance_embeds=True), None, 3.5)
    return velocity.eval(), LatentAutoencoder(tiny_kl().to(device))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """A pipeline's folder, not folded."""
    velocity, autoencoder = model()
    FluxSRPipeline.from_backbone(velocity, autoencoder, StudentRecord(start_time=0.3, window=48)).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path / "model"


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("by_block", [False, True])
def test_planned_peaks_are_the_measured_ones(folded, by_block):
    peaks = []
    for device in ("meta", "cpu"):
        velocity, autoencoder = model(device)
        velocity = fold_modulation(velocity, 0.3, fuse=True) if folded else velocity
        options = {"by_block": by_block, "cuda": False, "device": device}
        peaks.append(planned_peak(velocity, autoencoder, 0.3, 48, 48, **options)[0])
    assert peaks[0] == pytest.approx(peaks[1], rel=0.1)


def test_taef1_is_never_tiled_by_diffusers():
    """Which would tile it as an autoencoder of four channels."""
    with torch.device("meta"):
        velocity = FluxBackbone(tiny_transformer(in_channels=64)).eval()
        autoencoder = LatentAutoencoder(AutoencoderTiny(latent_channels=16))
    with pytest.raises(ValueError, match="at least"):  # all forms were tried
        choose_form(velocity, autoencoder, 0.5, 256, 10**3, cuda=False)


def test_forms_are_tried_from_the_fastest_to_the_leanest():
    velocity, autoencoder = model("meta")
    plan = lambda limit: choose_form(velocity, autoencoder, 0.3, 48, limit, cuda=True)
    forms, limit, least = (
        [],
        10**12,
        planned_peak(fold_modulation(velocity, 0.3), autoencoder, 0.3, 48, 48, by_block=True),
    )
    while limit > least[0]:
        found = plan(limit)
        assert found.peak_bytes <= limit
        forms.append(found.form)
        limit = found.peak_bytes - 1
    assert forms[0] == Form() and Form(folded=True) in forms and forms[-1].by_block
    with pytest.raises(ValueError, match="at least"):
        plan(1000)


@pytest.mark.parametrize(("tokens", "memory", "expected"), [
    (0, 24, Form(folded=True)), (0, 16, Form(folded=True)), (0, 12, Form(folded=True, by_block=True)),
    (512, 24, Form(folded=True)), (512, 16, Form(folded=True, by_block=True)), (0, 32, Form()),
])  # fmt: skip
def test_flux_dev_on_usual_cards(tokens, memory, expected, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without torchao
    name = "black-forest-labs/FLUX.1-dev"
    prompt = "nowhere.safetensors" if tokens else None
    velocity = load_flux(name, trainable="none", guidance=3.5, dtype="bfloat16", device="meta", prompt=prompt)
    autoencoder = load_autoencoder(name, subfolder="vae", dtype="bfloat16", device="meta")
    plan = choose_form(velocity.eval(), autoencoder, 0.25, 1024, memory * 10**9 - 10**9, cuda=True)
    assert plan.form == expected and plan.window == 1024


@pytest.mark.torch("2.7")  # before, group offloading asks for an accelerator, which the tests have not
def test_weights_block_by_block_give_the_same_bits(folder, image):
    whole = Upscaler.from_pretrained(folder, device="cpu", tile=48)(image, scale=2)
    plan = MemoryPlan(Form(by_block=True), "float32", 48, 48, 0, {}, 0)
    offloaded = Upscaler.from_pretrained(folder, device="cpu").fitted(plan, CPU)
    assert offloaded.velocity.transformer._diffusers_hook is not None
    assert torch.equal(offloaded(image, scale=2), whole)


def test_the_whole_way_from_a_size_to_a_picture(folder, image):
    whole = Upscaler.from_pretrained(folder, device="cpu")(image, scale=2)
    said: list[str] = []
    upscaler = Upscaler.from_pretrained(folder, device="cpu", memory="24GB", say=said.append)
    assert upscaler.memory_plan.form == Form() and upscaler.memory_plan.tile >= 48
    assert len(said) == 1 and "expected peak" in said[0]
    torch.testing.assert_close(upscaler(image, scale=2), whole)
    free = upscaler.memory_plan.peak_bytes
    leaner = Upscaler.from_pretrained(folder, device="cpu", memory=f"{(free - 1) / 1e9:.9f}GB")
    assert leaner.memory_plan.peak_bytes < free


@pytest.mark.torch("2.7")
def test_a_pipeline_that_lies_in_memory_is_fitted(folder, image):
    pipeline = FluxSRPipeline.from_pretrained(folder)
    whole = pipeline(image, scale=2).images[0]
    plan = pipeline.fit_memory("1GB", "cpu")
    assert plan.form == Form()
    torch.testing.assert_close(pipeline(image, scale=2).images[0], whole)
    velocity, autoencoder = model("meta")
    folded = fold_modulation(velocity, 0.3)
    least, _ = planned_peak(folded, autoencoder, 0.3, 48, 48, by_block=True, cuda=False)
    lean = FluxSRPipeline.from_pretrained(folder)
    fitted = lean.fit_memory(f"{(least + 1) / 1e9:.9f}GB", "cpu")
    assert fitted.form.by_block and fitted.window == 48
    assert lean(image, scale=2).images[0].shape == whole.shape


def test_int8_weights_are_near_and_planned(image):
    pytest.importorskip("torchao")
    velocity, autoencoder = model()
    upscaler = Upscaler(velocity, autoencoder, 0.3, window=48)
    whole = upscaler(image, scale=2)
    plan = MemoryPlan(Form(folded=True, quantize="int8"), "float32", 48, 48, 0, {}, 0)
    quantized = upscaler.fitted(plan, CPU)
    assert quantized.velocity.quantization == "int8"
    torch.testing.assert_close(quantized(image, scale=2), whole, atol=0.03, rtol=0)


def test_sizes():
    assert memory_limit("8GB", CPU) == 8 * 10**9 and memory_limit("8GiB", torch.device("cuda")) == 8 * 2**30 - 10**9
    assert memory_limit("auto", CPU) > 10**6
    for wrong in ("lots", "0GB"):
        with pytest.raises(ValueError, match=r"size|leaves"):
            memory_limit(wrong, CPU)
