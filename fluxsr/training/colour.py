"""The luma that PSNR-Y is computed on."""

from __future__ import annotations

import torch
from torch import Tensor


def luma(image: Tensor) -> Tensor:
    """Return the BT.601 luma ``(B, 1, H, W)`` in ``[16/255, 235/255]`` of RGB images ``(B, 3, H, W)`` in ``[0, 1]``.

    The same studio-swing luma as MATLAB's ``rgb2ycbcr``, which the field's tables use.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], device=image.device, dtype=image.dtype) / 255
    return torch.einsum("bchw,c->bhw", image, weights)[:, None] + 16 / 255
