"""What every loss says of arguments that are not images in [0, 1]."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fluxsr.losses import (
    AttentionDiversificationLoss,
    CharbonnierLoss,
    L1Loss,
    LPIPSLoss,
    MSELoss,
    MSELPIPSLoss,
    PeriodicityLoss,
    ScoreLoss,
    TVLPIPSLoss,
)
from fluxsr.losses.functional import total_variation_map
from fluxsr.losses.network import NetworkLoss


class Brightness(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(1, 2, 3))


LOSSES = [
    *(LPIPSLoss(net="nano"), TVLPIPSLoss(net="nano"), MSELPIPSLoss(net="nano")),
    *(L1Loss(), MSELoss(), CharbonnierLoss(), PeriodicityLoss(2), ScoreLoss(Brightness())),
]


@pytest.fixture(params=LOSSES, ids=lambda loss: type(loss).__name__)
def loss(request: pytest.FixtureRequest) -> nn.Module:
    return copy.deepcopy(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_8_bit_values_cast_to_float_are_refused(loss: nn.Module, dtype: torch.dtype, pair) -> None:
    sr_image, hr_image = ((image * 255).round().to(dtype) for image in pair)
    sr_image[0, 0, 0, 0] = 255
    with pytest.raises(ValueError, match=r"255.0"):
        loss(sr_image, hr_image)
    with pytest.raises(ValueError, match="divide by 255"):  # the mistake is not forgotten after the first report
        loss(sr_image.requires_grad_(), pair[1].to(dtype))
    with pytest.raises(ValueError, match="divide by 255"):
        loss(hr_image, sr_image.detach())
    loss(pair[0], pair[1])


@pytest.mark.filterwarnings("error")
def test_what_a_network_makes_is_let_through(loss: nn.Module, pair) -> None:
    assert loss(pair[0] * 2 - 0.5, pair[1]).isfinite()


def test_images_in_the_range_of_diffusers_are_said_once(loss: nn.Module, pair) -> None:
    signed = [image * 2 - 1 for image in pair]
    with pytest.warns(UserWarning, match="-1.00") as said:
        [loss(*signed) for _ in range(2)]
    assert len(said) == 1


def test_values_are_read_once(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = TVLPIPSLoss(net="nano")
    loss(*pair)

    def read(tensor: Tensor) -> Tensor:
        raise AssertionError("values were looked at again")

    monkeypatch.setattr(Tensor, "amax", read)
    loss(*pair)


def test_latents_have_no_range() -> None:
    MSELoss()(torch.full((1, 16, 4, 4), 100.0), torch.zeros(1, 16, 4, 4))


def test_nothing_is_read_on_the_meta_device_or_by_a_compiler(pair) -> None:
    assert L1Loss()(*(image.to("meta") for image in pair)).is_meta
    loss = L1Loss()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*pair), loss(*pair))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), "sr_image.*ndarray.*from_numpy"),
        ({"sr_image": torch.zeros(1, 3, 8, 8)}, "sr_image.*dict"),
        ((torch.zeros(1, 3, 8, 8),), "sr_image.*tuple"),
        (None, "sr_image.*NoneType"),
    ],
)
def test_what_is_no_tensor_is_told_how_to_become_one(loss: nn.Module, image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(image, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((40, 48, 3), r"looks like \(height, width, channels\), image.permute\(2, 0, 1\)\[None\]"),
        ((3, 40, 48), r"add a batch dimension, image\[None\]"),
        ((2, 40, 48, 3), r"3 channels, got 40 .*channels come second, image.permute\(0, 3, 1, 2\)$"),
        ((2, 40, 48, 4), r"image.permute\(0, 3, 1, 2\)\[:, :3\] without alpha"),
        ((2, 4, 40, 48), r"leave out the alpha channel, image\[:, :3\]"),
        ((2, 1, 40, 48), r"repeat a gray image"),
    ],
)
def test_a_wrong_shape_is_told_what_it_looks_like(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        LPIPSLoss(net="nano")(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("double_backward", [False, True])
def test_a_gradient_that_only_the_reference_wants_is_a_mistake(double_backward: bool, pair) -> None:
    loss: NetworkLoss = TVLPIPSLoss(net="nano", double_backward=double_backward)
    hr_image = pair[1].requires_grad_()
    with pytest.raises(ValueError, match="only hr_image"):
        loss(pair[0], hr_image)
    with torch.no_grad():
        assert loss(pair[0], hr_image) > 0


def test_other_arguments_that_are_no_tensors() -> None:
    with pytest.raises(ValueError, match=r"features .*dict"):
        AttentionDiversificationLoss()({"block": torch.zeros(1, 4, 8)})
    with pytest.raises(ValueError, match=r"features\[1\] .*tuple"):
        AttentionDiversificationLoss()([torch.zeros(1, 4, 8), (torch.zeros(1, 4, 8),)])
    with pytest.raises(ValueError, match=r"image .*ndarray"):
        total_variation_map(np.zeros((8, 8)))
