"""Computes a short digest of a model's weights, the same on every device and with any number of threads."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import nn

BYTES = "bytes:"
"""What a digest of bytes begins with; those of version 0.1 were of sums, which differ between devices."""

_PIECES, _PIECE = 16, 4096  # of a tensor with more elements


def weights_digest(module: nn.Module, names: Collection[str] | None = None, *, rounded: bool = False) -> str:
    """Return a short digest of the parameters: another file under the same name is another model.

    Of a large tensor evenly spaced pieces are read: 12 B weights through a hash would take minutes, and weights that differ
    do so nearly everywhere. Quantized weights, which have no plain bytes, count by name, shape and dtype.

    Args:
        module: Any module.
        names: Parameters that count; all by default.
        rounded: Round to bfloat16 before, so that the same weights in a wider dtype have the same digest.
    """
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if names is not None and name not in names:
            continue
        plain = parameter.detach()
        name = name.replace(".base_layer", "")  # where peft keeps the weights that it adapts
        digest.update(f"{name}:{tuple(parameter.shape)}:{torch.bfloat16 if rounded else parameter.dtype}".encode())
        if type(plain) not in (torch.Tensor, nn.Parameter) or plain.is_meta:
            continue
        flat = plain.reshape(-1)
        large = len(flat) > _PIECES * _PIECE
        starts = range(0, len(flat), len(flat) // _PIECES) if large else (0,)
        for start in starts:
            piece = flat[start : start + _PIECE] if large else flat
            piece = piece.bfloat16() if rounded else piece
            digest.update(piece.contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return f"{BYTES}{digest.hexdigest()[:16]}"
