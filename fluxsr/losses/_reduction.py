"""Reduces the distances of a batch: ``mean``, ``sum`` or ``none``, weighted by a mask where there is one."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = get_args(Reduction)


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is one of the three."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction={reduction!r} is unknown: choose {', '.join(map(repr, _REDUCTIONS))}")


def check_mask(mask: Tensor | None, image: Tensor, channels: tuple[int, ...] = (1,)) -> None:
    """Raise ValueError unless ``mask`` fits ``image``: ``(B or 1, one of channels, H, W)``, boolean or floating."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or not (mask.is_floating_point() or mask.dtype == torch.bool):
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a boolean or floating tensor, got {kind}: mask.bool() or mask.float()")
    batch, _, *size = image.shape
    if mask.ndim != 4 or mask.shape[0] not in (1, batch) or mask.shape[1] not in channels or [*mask.shape[2:]] != size:
        wanted = " or ".join(str((batch, number, *size)) for number in channels)
        raise ValueError(f"mask must have shape {wanted}, or 1 in the place of the batch, got {tuple(mask.shape)}")
    if mask.device != image.device:
        raise ValueError(f"mask is on {mask.device}, the images on {image.device}: move one of them")


def per_image(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of ``(B, ...)`` values for each image, ``(B,)``, weighed by a mask that broadcasts to them.

    An image whose mask is 0 everywhere counts 0.
    """
    if mask is None:
        return values.reshape(values.shape[0], -1).mean(dim=1)
    weights = mask.to(values.dtype).expand_as(values).flatten(1)
    total = weights.sum(dim=1)
    return (weights * values.flatten(1)).sum(dim=1) / torch.where(total > 0, total, 1.0)


def layer_weights(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask ``(B or 1, 1, H, W)`` as weights on a map ``(B, C, h, w)`` that sum to 1 for each image.

    Each position of the map weighs as much as the area of the mask that it stands for.
    """
    small = F.adaptive_avg_pool2d(mask.to(like.dtype), (like.shape[-2], like.shape[-1]))
    small = small.expand(like.shape[0], -1, -1, -1)
    total = small.sum(dim=(2, 3), keepdim=True)
    return small / torch.where(total > 0, total, 1.0)


def over_positions(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of maps ``(B, 1, h, w)`` over their positions, ``(B,)``, or the sum with weights that sum to 1."""
    return values.mean(dim=(1, 2, 3)) if weights is None else (values * weights).sum(dim=(1, 2, 3))


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean or the sum of the images' values ``(B,)``, or the values."""
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
