import pytest
import torch

from fluxsr.inference import Upscaler
from fluxsr.models import FluxBackbone, PixelAutoencoder, StudentRecord, load_flux
from tests.models.conftest import tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny FLUX.1-dev in diffusers' layout, a prompt and an adapter of it."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    transformer = tiny_transformer(guidance_embeds=True)
    transformer.save_pretrained(folder / "transformer")
    tiny_kl().save_pretrained(folder / "vae")
    tiny_prompt().save(folder / "prompt.safetensors")
    backbone = FluxBackbone(transformer, tiny_prompt(), guidance=3.5)
    backbone.add_lora(rank=2)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    backbone.save_lora(folder / "lora.safetensors")
    return folder


def test_the_shipped_student(nano):
    assert nano.start_time == 0.25 and nano.window == 128
    assert isinstance(nano.autoencoder, PixelAutoencoder)
    assert not any(parameter.requires_grad for parameter in nano.velocity.parameters())


def test_a_trained_file(tmp_path, nano):
    path = tmp_path / "mine.safetensors"
    load_flux("nano-student", trainable="none").save(path, record=StudentRecord(start_time=0.4, window=48))
    mine = Upscaler.from_pretrained(path, device="cpu", tile=96, color_fix="none")
    assert (mine.start_time, mine.window, mine.tile, mine.color_fix) == (0.4, 48, 96, "none")
    assert Upscaler.from_pretrained(path, start_time=0.3, window=32, device="cpu").start_time == 0.3


def test_an_adapter_on_a_base(base, generator):
    options = {"prompt": base / "prompt.safetensors", "guidance": 3.5, "start_time": 0.25, "device": "cpu"}
    plain = Upscaler.from_pretrained(base, **options)
    adapted = Upscaler.from_pretrained(base, lora=base / "lora.safetensors", **options)
    assert adapted.window == 1024 and adapted.autoencoder.latent_channels == adapted.velocity.latent_channels
    image = torch.rand(3, 20, 30, generator=generator)
    results = [upscaler(image, 2) for upscaler in (plain, adapted)]
    assert results[0].shape == (3, 40, 60) and not torch.allclose(*results)


def test_a_pipelines_folder(tmp_path, nano, generator):
    from fluxsr.inference.pipeline import FluxSRPipeline

    pipeline = FluxSRPipeline.from_backbone(
        nano.velocity, nano.autoencoder, StudentRecord(start_time=0.25, window=128, base="nano")
    )
    pipeline.save_pretrained(tmp_path / "folder")
    loaded = Upscaler.from_pretrained(tmp_path / "folder", device="cpu")
    image = torch.rand(3, 20, 30, generator=generator)
    assert loaded.window == 128 and torch.equal(loaded(image, 2), nano(image, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nowhere.safetensors"}, "nowhere.safetensors does not exist"),
        ({"model": "nano-student", "dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"model": "nano-student", "device": "tpu"}, "there is no device 'tpu' here"),
    ],
)
def test_what_cannot_be_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        Upscaler.from_pretrained(**{"device": "cpu", **options})


def test_an_adapter_must_say_its_time(base):
    with pytest.raises(ValueError, match=r"lora.safetensors does not say .* give start_time"):
        Upscaler.from_pretrained(base, lora=base / "lora.safetensors", device="cpu")


def test_parts_that_do_not_fit(base):
    with pytest.raises(ValueError, match="latent channels and the autoencoder 48: give the autoencoder"):
        Upscaler.from_pretrained(base, start_time=0.25, guidance=3.5, autoencoder="pixel", device="cpu")
