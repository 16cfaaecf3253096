import pytest
import torch
from diffusers import FluxTransformer2DModel

from fluxsr.models import PixelAutoencoder, flux_architecture, load_flux


@pytest.mark.parametrize(("name", "parameters"), [("flux.1-dev", 11_901_408_320), ("flux.1-schnell", 11_891_178_560)])
def test_the_published_models_are_known_without_network(name, parameters):
    with torch.device("meta"):
        model = FluxTransformer2DModel(**flux_architecture(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_nano_is_small():
    backbone = load_flux("nano", weights=False, trainable="full")
    # Of width D: the four blocks' modulation, attention and MLP in one, two norms of a head; the last norm; the pixels of a
    # token in and out; the embedders of time (256 numbers), pooled prompt and prompt (16 each).
    D = 3 * 64
    block = 3 * (D * D + D) + 3 * (D * D + D) + (D * 4 * D + 4 * D) + (5 * D * D + D) + 2 * 64
    pixels = 3 * 8 * 8
    ends = 2 * (D * D + D) + (pixels * D + D) + (D * pixels + pixels)
    embedders = (256 * D + D) + (D * D + D) + (16 * D + D) + (D * D + D) + (16 * D + D)
    found = sum(parameter.numel() for parameter in backbone.parameters())
    assert found == 4 * block + ends + embedders == 2_499_008


def test_nano_works_on_the_pixel_autoencoders_latents():
    assert flux_architecture("nano")["in_channels"] == 2 * 2 * PixelAutoencoder().latent_channels


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match=r"unknown architecture 'flux.2'; known: flux.1-dev"):
        flux_architecture("flux.2")
