"""The pipeline against the upscaler that it delegates to, through folders, fresh processes and a stand-in for the hub."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.inference.upscaler import Upscaler
from fluxsr.models import (
    FluxBackbone,
    LatentAutoencoder,
    PixelAutoencoder,
    StudentRecord,
    fold_modulation,
    fuse_lora,
    load_flux,
)
from fluxsr.models.autoencoders import wrap_autoencoder
from tests.models.conftest import perturb, tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.models.test_flux2 import tiny_kl2


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut()[100:140, 200:250])


def tiny_parts(folded: bool = False):
    """A tiny FLUX.1-dev, with a prompt and a fused adapter, and its autoencoder."""
    backbone = FluxBackbone(tiny_transformer(guidance_embeds=True), tiny_prompt(), 3.5)
    backbone.add_lora(rank=2)
    perturb(backbone)
    return (fold_modulation(backbone, 0.3, fuse=True) if folded else fuse_lora(backbone)), LatentAutoencoder(tiny_kl())


def flux2_parts(folded: bool = False):
    """A tiny FLUX.2-klein, with a prompt and a fused adapter, and its autoencoder."""
    backbone = FluxBackbone(tiny_transformer(family="flux.2"), tiny_prompt(family="flux.2"))
    backbone.add_lora(rank=2)
    perturb(backbone)
    return (fold_modulation(backbone, 0.3, fuse=True) if folded else fuse_lora(backbone)), wrap_autoencoder(tiny_kl2())


def nano_parts(folded: bool = False):
    backbone = load_flux("nano-student", trainable="none")
    return (fold_modulation(backbone, 0.3, fuse=True) if folded else backbone), PixelAutoencoder()


@pytest.mark.parametrize("parts", [tiny_parts, flux2_parts, nano_parts])
@pytest.mark.parametrize("folded", [False, True])
def test_a_saved_pipeline_gives_the_same_picture(tmp_path, photo, parts, folded):
    backbone, autoencoder = parts(folded)
    pipeline = FluxSRPipeline.from_backbone(
        backbone, autoencoder, StudentRecord(start_time=0.3, window=64, trained="briefly")
    )
    image = (
        np.asarray(photo, np.float32) / 255
    )  # not rounded to 8 bit, where a difference would go unseen or be a whole level
    expected = Upscaler(backbone, autoencoder, 0.3, window=64)(image, scale=2)
    np.testing.assert_allclose(pipeline(image, scale=2).images[0], expected, rtol=0, atol=1e-5)
    pipeline.save_pretrained(tmp_path / "model")
    loaded = FluxSRPipeline.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(loaded(image, scale=2).images[0], expected, rtol=0, atol=1e-5)
    assert (loaded.record.start_time, loaded.record.window, loaded.record.trained) == (0.3, 64, "briefly")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"README.md", "model_index.json", "transformer"} | (
        {"vae"} if parts is not nano_parts else set()
    ) | (set() if folded else {"prompt"})
    again = Upscaler.from_pretrained(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(again(image, scale=2), expected, rtol=0, atol=1e-5)
    assert not list((tmp_path / "model").rglob("*.bin"))


def test_a_fresh_process_gives_the_same_bits(tmp_path):
    """Of floating-point pixels, which hide nothing by rounding to 8 bit."""
    image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    expected = []
    for name, folded in (("whole", False), ("folded", True)):
        pipeline = FluxSRPipeline.from_backbone(*nano_parts(folded), StudentRecord(start_time=0.3, window=64))
        pipeline.save_pretrained(tmp_path / name)
        result = pipeline(image, scale=3).images[0]
        assert result.shape == (3, 60, 72)
        expected.append(hashlib.sha256(result.numpy().tobytes()).hexdigest())
    code = (
        "import hashlib, torch; torch.set_num_threads(1)\n"
        "from fluxsr.inference.pipeline import FluxSRPipeline\n"
        "image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))\n"
        "for name in ('whole', 'folded'):\n"
        f"    pipeline = FluxSRPipeline.from_pretrained({str(tmp_path)!r} + '/' + name)\n"
        "    print(hashlib.sha256(pipeline(image, scale=3).images[0].numpy().tobytes()).hexdigest())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == expected


def test_the_call(photo):
    pipeline = FluxSRPipeline.from_backbone(*nano_parts(), StudentRecord(start_time=0.25, window=64, base="nano"))
    one, array = pipeline([photo, np.asarray(photo)], size=(30, 44)).images
    assert one.size == (44, 30) and isinstance(array, np.ndarray) and np.array_equal(one, array)
    plain = pipeline(photo, size=(30, 44), color_fix="none", return_dict=False)[0][0]
    assert not np.array_equal(plain, one)
    two_steps = pipeline(photo, size=(30, 44), steps=2).images[0]
    assert not np.array_equal(two_steps, one)


def test_a_folded_pipeline_takes_one_step(photo):
    pipeline = FluxSRPipeline.from_backbone(*nano_parts(folded=True), StudentRecord(start_time=0.3, window=64))
    with pytest.raises(ValueError, match=r"folded at t = 0.3, got 0.15"):
        pipeline(photo, steps=2)


def test_an_adapter_loads_into_the_pipelines_transformer(tmp_path):
    """By diffusers' own call; the velocity is the student's."""
    student = FluxBackbone(tiny_transformer(guidance_embeds=True), tiny_prompt(), 3.5)
    plain = FluxSRPipeline.from_backbone(
        fuse_lora(student), LatentAutoencoder(tiny_kl()), StudentRecord(start_time=0.25)
    )
    student.add_lora(rank=2, alpha=6.0)
    perturb(student)
    file = student.save_lora(tmp_path / "adapter.safetensors")
    plain.transformer.load_lora_adapter(str(file), prefix="transformer")
    state = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.25])
    with torch.no_grad():
        torch.testing.assert_close(plain.upscaler().velocity(*state), student(*state), rtol=1e-5, atol=1e-5)


def test_flux_pipelines_own_loader_takes_the_adapter(tmp_path):
    """``FluxPipeline.load_lora_weights``, on a pipeline of nothing but a transformer."""
    from diffusers import FluxPipeline

    student = FluxBackbone(tiny_transformer(), tiny_prompt())
    student.add_lora(rank=2, alpha=6.0)
    perturb(student)
    student.save_lora(tmp_path)
    nothing = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxPipeline(transformer=tiny_transformer(), **nothing)
    pipeline.load_lora_weights(str(tmp_path))
    state = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.25])
    loaded = FluxBackbone(pipeline.transformer, tiny_prompt())
    torch.testing.assert_close(loaded(*state), student(*state), rtol=1e-5, atol=1e-5)


class Hub:
    """Stands for ``huggingface_hub.HfApi``: keeps what was uploaded in a folder."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> SimpleNamespace:
        Hub.private = private
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str, create_pr: bool) -> str:
        shutil.copytree(folder_path, Hub.root / repo_id)
        return f"https://hub/{repo_id}/commit/1"


def test_uploads_carry_card_and_license(tmp_path, monkeypatch, photo):
    Hub.root = tmp_path
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    pipeline = FluxSRPipeline.from_backbone(
        *tiny_parts(), StudentRecord(start_time=0.25, base="black-forest-labs/FLUX.1-dev")
    )
    assert pipeline.push_to_hub("sr", private=True) == "https://hub/me/sr/commit/1"
    assert Hub.private
    card = (tmp_path / "me" / "sr" / "README.md").read_text()
    assert "flux-1-dev-non-commercial-license" in card and 'from_pretrained("me/sr"' in card
    loaded = FluxSRPipeline.from_pretrained(tmp_path / "me" / "sr")
    assert np.array_equal(loaded(photo, scale=1).images[0], pipeline(photo, scale=1).images[0])


def test_no_path_of_this_machine_is_written(tmp_path):
    pipeline = FluxSRPipeline.from_backbone(*tiny_parts(), StudentRecord(start_time=0.25))
    pipeline.save_pretrained(tmp_path / "first")
    FluxSRPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for file in [*(tmp_path / "second").rglob("*.json"), *(tmp_path / "second").rglob("*.md")]:
        assert str(tmp_path) not in file.read_text(), file
    index = json.loads((tmp_path / "second" / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "FluxTransformer2DModel"]


def test_what_is_refused(tmp_path):
    backbone, autoencoder = nano_parts()
    with pytest.raises(ValueError, match="works on 48 latent channels and the autoencoder makes 4"):
        FluxSRPipeline.from_backbone(backbone, LatentAutoencoder(tiny_kl()), StudentRecord(start_time=0.25))
    pipeline = FluxSRPipeline.from_backbone(backbone, autoencoder, StudentRecord(start_time=0.25))
    with pytest.raises(ValueError, match="only writes a folder"):
        pipeline.save_pretrained(tmp_path / "x", push_to_hub=True)
    backbone.add_lora(rank=2)
    with pytest.raises(ValueError, match=r"has adapters \(student\).*fuse the student's first"):
        FluxSRPipeline.from_backbone(backbone, autoencoder, StudentRecord(start_time=0.25))
    assert not Path(tmp_path / "x").exists()


def test_strength_and_sizes_are_those_of_the_upscaler():
    pipeline = FluxSRPipeline.from_backbone(*nano_parts(), StudentRecord(start_time=0.25, window=64, base="nano"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    upscaler = pipeline.upscaler()
    for options in ({"strength": 0.5}, {"longest": 45}, {"strength": 0, "width": 60}):
        assert np.array_equal(np.asarray(pipeline(image, **options).images[0]), np.asarray(upscaler(image, **options)))
    with pytest.raises(ValueError, match="strength"):
        pipeline(image, strength=3)


def test_the_configuration_of_another_pipeline_is_refused_wherever_it_comes_from(tmp_path):
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "FluxPipeline", "_diffusers_version": "0.37"})
    )
    with pytest.raises(ValueError, match="is a FluxPipeline, not a FluxSRPipeline"):
        FluxSRPipeline.load_config(str(tmp_path))
