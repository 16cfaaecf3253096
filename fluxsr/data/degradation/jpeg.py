"""Compresses and decompresses as JPEG by tensor arithmetic: no file, no codec, any device.

The entropy coder is lossless, so it is left out. Everything that loses information is here, as in baseline JPEG of 8 bit.
The tables are those of ITU-T T.81 annex K, scaled by quality as the Independent JPEG Group's library does. Chroma has half
the size in both directions (4:2:0), and the library's default triangle filter enlarges it again.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-T T.81, tables K.1 and K.2, in rows.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# JFIF: full-range BT.601. Rows Y, Cb, Cr; Cb and Cr are centered at 128.
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
_BLOCK = 8
_UNIT = 16  # with 4:2:0 an image is coded in units of 16x16 pixels


def jpeg_compress(image: Tensor, quality: int) -> Tensor:
    """Return images as they come back from JPEG files.

    Args:
        image: `(B, 3, H, W)` float32 in [0, 1], of any size; rounded to 8 bit first, and in the end.
        quality: 1 (worst) to 100, as in Pillow.
    """
    height, width = image.shape[-2:]
    luma_steps, chroma_steps = _quantizers(quality).to(image.device)

    # In double precision: a float32 product may be computed in TF32 or bfloat16, as the user's settings have it.
    pixels = (image * 255.0).round_().clamp_(0.0, 255.0).double()
    pixels = F.pad(pixels, (0, -width % _UNIT, 0, -height % _UNIT), mode="replicate")
    ycbcr = _mix_channels(pixels, _TO_YCBCR)
    ycbcr[:, :1] -= 128.0  # the level shift; centered chroma has it already
    ycbcr.round_()
    luma = _code(ycbcr[:, :1], luma_steps)
    # Halves are rounded down in even columns and up in odd ones, as the IJG library does to avoid a drift of the
    # colors.
    halved = F.avg_pool2d(ycbcr[:, 1:], 2)
    halved[..., 0::2] -= 0.25
    chroma = _code(halved.add_(0.5).floor_(), chroma_steps)

    chroma = chroma[..., : math.ceil(height / 2), : math.ceil(width / 2)]
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    # The filter's results are whole sixteenths; halves go up in even columns and down in odd ones.
    chroma[..., 1::2] -= 1 / 16
    chroma = _round_half_up(chroma)
    decoded = torch.cat([luma[..., :height, :width] + 128.0, chroma[..., :height, :width]], dim=1)
    return _mix_channels(decoded, _TO_RGB).round_().clamp_(0.0, 255.0).float().div_(255.0)


def _code(plane: Tensor, steps: Tensor) -> Tensor:
    """Quantize the 8x8 cosine transform of `(B, C, H, W)` planes in 64 steps, and transform back."""
    batch, channels, height, width = plane.shape
    rows, columns = height // _BLOCK, width // _BLOCK
    blocks = plane.reshape(batch, channels, rows, _BLOCK, columns, _BLOCK).transpose(3, 4)
    blocks = blocks.reshape(batch, -1, _BLOCK * _BLOCK)
    basis = _cosine_basis().to(plane.device)
    # The library's transform ends in whole eighths, and its divisions round halves away from zero: halves are frequent.
    coefficients = (blocks @ basis.T).mul_(8.0).round_().div_(8.0 * steps)
    coefficients = (coefficients.abs() + 0.5).floor_().mul_(coefficients.sign()).mul_(steps)
    blocks = (coefficients @ basis).reshape(batch, channels, rows, columns, _BLOCK, _BLOCK).transpose(3, 4)
    blocks = blocks.reshape(batch, channels, height, width)
    # A decoder stores 8-bit samples: shifted by 128 they lie in [-128, 127].
    return _round_half_up(blocks).clamp_(-128.0, 127.0)


def _round_half_up(values: Tensor) -> Tensor:
    """Round in place; what the transform left a hair below a half counts as a half."""
    return values.add_(0.5 + 1e-6).floor_()


def _mix_channels(image: Tensor, matrix: tuple[tuple[float, float, float], ...]) -> Tensor:
    batch, _, height, width = image.shape
    weights = torch.tensor(matrix, dtype=image.dtype, device=image.device)
    return (weights @ image.reshape(batch, 3, height * width)).reshape(batch, 3, height, width)


@lru_cache(maxsize=1)
def _cosine_basis() -> Tensor:
    """Return the orthonormal two-dimensional DCT-II, `(64, 64)` float64: coefficients = basis @ block."""
    frequency = torch.arange(_BLOCK, dtype=torch.float64)[:, None]
    position = torch.arange(_BLOCK, dtype=torch.float64)[None]
    basis = torch.cos(math.pi * (2 * position + 1) * frequency / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return torch.kron(basis, basis)


@lru_cache(maxsize=128)
def _quantizers(quality: int) -> Tensor:
    """Quantizer steps of luma and chroma for an IJG quality, `(2, 64)` in rows."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must lie in 1..100, got {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([_LUMA_TABLE, _CHROMA_TABLE]).reshape(2, 64)
    return ((tables * percent + 50) // 100).clamp(1, 255).double()
