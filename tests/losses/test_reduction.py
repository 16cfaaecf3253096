"""Masks: what is masked out counts nothing, and a mask that is everywhere the same changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fluxsr.losses import (
    CharbonnierLoss,
    DISTSLoss,
    L1Loss,
    LPIPSLoss,
    MSELoss,
    MSELPIPSLoss,
    TVLPIPSLoss,
    functional as F,
)

LOSSES: dict[str, Callable[[Path], nn.Module]] = {
    "l1": lambda path: L1Loss("none"),
    "mse": lambda path: MSELoss("none"),
    "charbonnier": lambda path: CharbonnierLoss(reduction="none"),
    "lpips nano": lambda path: LPIPSLoss("nano", reduction="none"),
    "lpips squeeze": lambda path: LPIPSLoss("squeeze", path, reduction="none"),
    "lpips squeeze, graph": lambda path: LPIPSLoss("squeeze", path, reduction="none", double_backward=True),
    "tv-lpips": lambda path: TVLPIPSLoss(net="nano", reduction="none"),
    "mse + lpips": lambda path: MSELPIPSLoss(net="nano", reduction="none"),
}


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest, random_lpips) -> nn.Module:
    return LOSSES[request.param](random_lpips("squeeze")[1])


def with_gradient(loss: nn.Module, pair: tuple[Tensor, Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
    image = pair[0].clone().requires_grad_()
    values = loss(image, pair[1], mask)
    return values.detach(), torch.autograd.grad(values.sum(), image)[0]


@pytest.mark.parametrize("level", [1.0, 0.25])
def test_an_even_mask_changes_nothing(loss: nn.Module, level: float, pair) -> None:
    mask = torch.full((1, 1, 40, 48), level)
    for found, expected in zip(with_gradient(loss, pair, mask), with_gradient(loss, pair, None), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_what_is_masked_out_counts_nothing(loss: nn.Module, pair) -> None:
    sr_image, hr_image = pair
    mask = torch.zeros(2, 1, 40, 48, dtype=torch.bool)
    mask[0, :, :, :24] = True  # the second image is masked out altogether
    values, gradient = with_gradient(loss, pair, mask)
    assert values[0] > 0 and values[1] == 0
    assert gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0
    equal_there = torch.where(mask, hr_image, sr_image)
    assert loss(equal_there, hr_image, mask)[0] < 0.5 * values[0]  # features see a little across the border
    if isinstance(loss, (L1Loss, MSELoss)):
        assert loss(equal_there, hr_image, mask)[0] == 0


@pytest.mark.parametrize("wrong", [-0.1, float("nan")])
def test_weights_below_zero_are_refused(loss: nn.Module, wrong: float, pair) -> None:
    mask = torch.ones(2, 1, 40, 48)
    mask[1, 0, 3, 4] = wrong
    loss(*pair)  # a mask may come later
    with pytest.raises(ValueError, match="0 or more"):
        loss(*pair, mask)
    loss(*pair, mask.clamp(min=0).nan_to_num())


def test_a_mask_is_a_weighted_mean_of_the_pixels(pair) -> None:
    weights = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(3))
    expected = (weights * (pair[0] - pair[1]).abs()).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    torch.testing.assert_close(F.l1(*pair, mask=weights, reduction="none"), expected)
    torch.testing.assert_close(F.l1(*pair, mask=weights), expected.mean())
    torch.testing.assert_close(F.l1(*pair, mask=weights, reduction="sum"), expected.sum())
    torch.testing.assert_close(F.mse(*pair), nn.functional.mse_loss(*pair))


def test_masked_gradients_are_those_of_the_graph(pair, random_lpips) -> None:
    mask = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(4))
    inside, graph = (LOSSES[name](random_lpips("squeeze")[1]) for name in ("lpips squeeze", "lpips squeeze, graph"))
    for found, expected in zip(with_gradient(inside, pair, mask), with_gradient(graph, pair, mask), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)


def test_a_network_of_ones_own_may_return_maps(pair) -> None:
    class Maps(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x - y).square().mean(dim=1, keepdim=True) / 4  # [-1, 1] is twice as wide as [0, 1]

    mask = torch.rand(1, 1, 40, 48, generator=torch.Generator().manual_seed(5))
    expected = F.mse(*pair, mask=mask, reduction="none")
    torch.testing.assert_close(LPIPSLoss(Maps(), reduction="none")(*pair, mask), expected)


def test_what_can_not_be_done_is_said(pair, random_lpips, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batchmean"):
        L1Loss("batchmean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask .*\(2, 40, 48\)"):
        L1Loss()(*pair, torch.ones(2, 40, 48))
    with pytest.raises(ValueError, match="uint8"):
        L1Loss()(*pair, torch.ones(2, 1, 40, 48, dtype=torch.uint8))
    torch.save({name: torch.ones(1475) for name in ("alpha", "beta")}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="DISTSNet"):
        DISTSLoss(random_lpips("vgg")[1], tmp_path / "weights.pt")(*pair, torch.ones(1, 1, 40, 48))
