"""Implements the losses' arithmetic as pure functions, without state and without networks.

Half-precision input is computed in float32, under autocast too; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.losses._checks import at_least_float32, check_images, check_tensor
from fluxsr.losses._reduction import Reduction, check_mask, check_reduction, per_image, reduced
from fluxsr.losses.spectrum import periodicity as periodicity


def luma(image: Tensor) -> Tensor:
    """Return the BT.601 luma that the field's tables are measured on, ``16/255`` to ``235/255``.

    Studio swing, as MATLAB's ``rgb2ycbcr`` has it, without its rounding to whole levels.

    Shape: ``(B, 3, H, W) -> (B, 1, H, W)``, RGB in [0, 1].
    """
    weights = torch.tensor([65.481, 128.553, 24.966], device=image.device, dtype=image.dtype) / 255
    # No matrix product: autocast would round it to bfloat16, and a PSNR with it.
    return (image * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True) + 16 / 255


def total_variation_map(image: Tensor) -> Tensor:
    """How much each pixel differs from the one below and the one to its right, per channel (FluxSR eq. 20).

    ``TV(x)[i, j] = |x[i+1, j] - x[i, j]| + |x[i, j+1] - x[i, j]|``; the difference of the last row, and that of the
    last column, is 0, so the size is kept (our default, the paper doesn't say).

    Shape: ``(..., H, W) -> (..., H, W)``, floating, of the same dtype. Range: [0, 2] for images in [0, 1].

    Raises:
        ValueError: Fewer than two dimensions, or an integer dtype.
    """
    check_tensor("image", image)
    if image.ndim < 2:
        raise ValueError(f"an image needs at least two dimensions (height, width), got shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"an image must be floating point in [0, 1], got {image.dtype}: divide by 255 first")
    down = F.pad(image.diff(dim=-2).abs(), (0, 0, 0, 1))
    right = F.pad(image.diff(dim=-1).abs(), (0, 1))
    return down + right


def mse(sr_image: Tensor, hr_image: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean") -> Tensor:
    """Mean of squared differences, the first term of FluxSR eq. 21.

    Shape: two ``(B, C, H, W)`` to a scalar, or ``(B,)`` with ``reduction="none"``. Range: [0, 1] for images in [0, 1].

    Args:
        sr_image, hr_image: ``(B, C, H, W)``, in [0, 1].
        mask: Weights of the pixels, not negative, ``(B or 1, C or 1, H, W)``; each image's mean is the weighted one. An image
            whose mask is 0 everywhere counts 0. ``None``: all alike.
        reduction: ``"mean"`` over the images, their ``"sum"``, or ``"none"``: one value for each image.

    Raises:
        ValueError: Not two floating images of one shape, a mask that doesn't fit, or an unknown reduction.
    """
    return _pixelwise(sr_image, hr_image, mask, reduction, torch.square)


def l1(sr_image: Tensor, hr_image: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean") -> Tensor:
    """Mean of absolute differences; shapes, range, mask, reduction and errors as :func:`mse`."""
    return _pixelwise(sr_image, hr_image, mask, reduction, torch.abs)


def charbonnier(
    sr_image: Tensor,
    hr_image: Tensor,
    epsilon: float = 1e-3,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean of ``sqrt(difference^2 + epsilon^2)``: L1 with a slope at 0 (Charbonnier et al. 1994).

    ``epsilon`` is in units of the image, positive; 1e-3 is what super-resolution commonly uses (our default). Equal images
    cost ``epsilon``. Shapes, mask, reduction and errors as :func:`mse`.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon} must be positive: the slope at equal pixels would be undefined")
    return _pixelwise(sr_image, hr_image, mask, reduction, lambda difference: (difference.square() + epsilon**2).sqrt())


def token_diversity(tokens: Tensor) -> Tensor:
    """Mean cosine between each token and the mean token, ``mean_i cos(A_i, A_bar)`` (FluxSR eq. 22).

    Minimized, it makes tokens differ. 1 where all tokens point the same way; 0 where they cancel out, and there the
    gradient is 0 as well, since the mean token has no direction.

    Shape: ``(B, N, D) -> (B,)``, floating. Range: [0, 1] where all tokens have one length, [-1, 1] at most.

    Raises:
        ValueError: Not three dimensions, no tokens, or an integer dtype.
    """
    shape = tuple(tokens.shape)
    if tokens.ndim != 3:
        hint = ": flatten a feature map with x.flatten(2).transpose(1, 2)" if tokens.ndim == 4 else ""
        raise ValueError(f"tokens must have shape (batch, tokens, width), got {shape}{hint}")
    if not tokens.is_floating_point() or tokens.numel() == 0:
        raise ValueError(f"tokens must be floating point and not empty, got {tokens.dtype} of shape {shape}")
    tokens = at_least_float32(tokens)
    length = torch.linalg.vector_norm(tokens, dim=2, keepdim=True)
    mean_token = tokens.mean(dim=1)
    # mean_i cos(A_i, A_bar) = (mean_i A_i / |A_i|) . A_bar / |A_bar|: no second tensor of the tokens' size is kept.
    mean_direction = (tokens * torch.where(length > 0, length, 1.0).reciprocal()).mean(dim=1)
    mean_length = torch.linalg.vector_norm(mean_token, dim=1)
    # Tokens that cancel out leave rounding noise, and the direction of noise is no direction.
    noise = 8 * torch.finfo(tokens.dtype).eps * length.detach().mean(dim=(1, 2))
    has_direction = mean_length > noise
    cosine = (mean_direction * mean_token).sum(dim=1) / torch.where(has_direction, mean_length, 1.0)
    return torch.where(has_direction, cosine, 0.0)


def attention_map_diversity(maps: Tensor) -> Tensor:
    """Mean cosine between each row of an attention map and the mean row, after dropping small entries.

    Maps are averaged over heads; entries at or below ``2 / N`` are zeroed in each row and in the mean row
    ("Robustifying Token Attention for Vision Transformers", ICCV 2023). A row with nothing left counts 0, so uniform
    attention costs nothing. This is the namesake of FluxSR's loss (:func:`token_diversity`), not the same.

    Shape: softmax attention ``(B, heads, N, N) -> (B,)``, each row summing to 1. Range: [0, 1].

    Raises:
        ValueError: Not four dimensions, not square, empty, or an integer dtype.
    """
    shape = tuple(maps.shape)
    if maps.ndim != 4 or shape[-1] != shape[-2]:
        raise ValueError(f"attention maps must have shape (batch, heads, tokens, tokens), got {shape}")
    if not maps.is_floating_point() or maps.numel() == 0:
        raise ValueError(f"attention maps must be floating point and not empty, got {maps.dtype} of shape {shape}")
    rows = at_least_float32(maps).mean(dim=1)
    threshold = 2.0 / maps.shape[-1]
    mean_row = F.threshold(rows.mean(dim=1, keepdim=True), threshold, 0.0)
    rows = F.threshold(rows, threshold, 0.0)
    lengths = torch.linalg.vector_norm(rows, dim=2) * torch.linalg.vector_norm(mean_row, dim=2)
    return ((rows * mean_row).sum(dim=2) / torch.where(lengths > 0, lengths, 1.0)).mean(dim=1)


def _pixelwise(
    sr_image: Tensor,
    hr_image: Tensor,
    mask: Tensor | None,
    reduction: Reduction,
    distance: Callable[[Tensor], Tensor],
) -> Tensor:
    check_reduction(reduction)
    check_images(sr_image, hr_image)
    check_mask(mask, sr_image, (1, sr_image.shape[1]))
    values = distance(at_least_float32(sr_image) - at_least_float32(hr_image))
    return values.mean() if mask is None and reduction == "mean" else reduced(per_image(values, mask), reduction)
