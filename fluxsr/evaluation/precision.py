"""Sets full single precision while something is measured, so that a GPU's table is the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def without_tf32() -> Iterator[None]:
    """Run the body with TF32 off in matrix products and convolutions; a GPU's convolutions have it on by default."""
    backends: Any = torch.backends
    # Since torch 2.9 each kind of operation has a name of its own; the older names refuse to be read where they disagree.
    named = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn] if hasattr(backends.cudnn, "conv") else []
    older = [backends.cuda.matmul, backends.cudnn]
    before = [kind.fp32_precision for kind in named]
    allowed = [before[0] == "tf32", before[1] == "tf32"] if named else [kind.allow_tf32 for kind in older]
    for kind in older:
        kind.allow_tf32 = False
    for kind in named:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        for kind, value in zip(older, allowed, strict=True):
            kind.allow_tf32 = value
        for kind, value in zip(named, before, strict=True):
            kind.fp32_precision = value
