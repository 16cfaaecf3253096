import pytest
import torch
from diffusers import FluxTransformer2DModel

from fluxsr.models import flux_architecture, load_flux


@pytest.mark.parametrize(("name", "parameters"), [("flux.1-dev", 11_901_408_320), ("flux.1-schnell", 11_891_178_560)])
def test_the_published_models_are_known_without_network(name, parameters):
    with torch.device("meta"):
        model = FluxTransformer2DModel(**flux_architecture(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_nano_is_small():
    backbone = load_flux("nano", weights=False, trainable="full")
    assert sum(parameter.numel() for parameter in backbone.parameters()) < 8_000_000


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match=r"unknown architecture 'flux.2'; known: flux.1-dev"):
        flux_architecture("flux.2")
