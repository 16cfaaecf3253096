import pytest
import torch

from fluxsr.inference import Upscaler
from fluxsr.models import FluxBackbone, PixelAutoencoder
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
