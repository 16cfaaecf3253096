from __future__ import annotations

import pytest
import torch

from fluxsr.losses.backbones import CHANNELS, SMALLEST_SIDE, load_tower


@pytest.mark.parametrize("name", ["vgg", "alex", "squeeze"])
def test_maps_at_the_smallest_side(name: str, random_lpips) -> None:
    tower = load_tower(name, random_lpips(name)[1])
    side = SMALLEST_SIDE[name]
    maps = tower(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert tuple(m.shape[1] for m in maps) == CHANNELS[name]
    assert all(min(m.shape[-2:]) >= 1 for m in maps)
    with pytest.raises(RuntimeError):
        tower(torch.zeros(1, 3, side - 1, side - 1))


def test_weights_of_another_network_are_refused(random_lpips) -> None:
    with pytest.raises(ValueError, match="not the weights of VGG16 features"):
        load_tower("vgg", random_lpips("alex")[1])
