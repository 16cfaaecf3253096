from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxsr.losses import CharbonnierLoss, L1Loss, MSELoss

LOSSES = [MSELoss(), L1Loss(), CharbonnierLoss(1e-3)]


def test_values_written_out(pair: tuple[Tensor, Tensor]) -> None:
    difference = pair[0] - pair[1]
    torch.testing.assert_close(MSELoss()(*pair), (difference**2).mean())
    torch.testing.assert_close(L1Loss()(*pair), difference.abs().mean())
    torch.testing.assert_close(CharbonnierLoss(0.1)(*pair), (difference**2 + 0.01).sqrt().mean())
    assert CharbonnierLoss(0.1)(pair[0], pair[0]).item() == pytest.approx(0.1)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32(loss: nn.Module, dtype: torch.dtype, pair) -> None:
    sr_image, hr_image = (image.to(dtype).requires_grad_() for image in pair)
    value = loss(sr_image, hr_image)
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert sr_image.grad.dtype == dtype
    torch.testing.assert_close(value.double(), loss(pair[0].double(), pair[1].double()), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    ("sr_image", "hr_image", "named"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), r"sr_image.*\(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"hr_image.*uint8"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16), r"\(1, 3, 8, 8\).*\(1, 3, 16, 16\)"),
        (torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8), "empty"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, device="meta"), "meta"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(sr_image, hr_image, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        L1Loss()(sr_image, hr_image)
    with pytest.raises(ValueError, match=r"epsilon=-1"):
        CharbonnierLoss(-1.0)
