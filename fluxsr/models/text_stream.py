"""Removes the text stream, 18 % of FLUX.2-klein-4B, through which nothing flows without text tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.models.families import Family


class Constant(nn.Module):
    """A layer that gives ``value`` ``(1, n)`` whatever comes in."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", torch.zeros(1, features))

    def forward(self, _: Tensor) -> Tensor:
        """Return the constant."""
        return self.value


class Nothing(nn.Module):
    """Stands for an embedder that is not needed: zeros, of ``features`` channels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        """Return zeros, a row of channels for each row of ``x`` ``(B,)`` or ``(B, D)``, or token of ``x`` ``(B, T, D)``."""
        return x.new_zeros(*x.shape[: max(1, x.ndim - 1)], self.features, dtype=_linear_dtype(x))


class Silent(nn.Module):
    """Stands for a layer that no token flows through."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, which is empty, in the dtype of a linear's output."""
        return x.to(_linear_dtype(x))


def _linear_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a linear's output would be.

    Under autocast a linear's output is in 16 bits and a norm's in 32. Text tokens left in 32 would bring the image tokens
    that they are joined with, and all attention, to 32. That holds even for zero text tokens.
    """
    kind = "cpu" if x.is_meta else x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def drop_text_stream(transformer: Any, family: Family) -> None:
    """Take out, in place, what works on text tokens alone; the model runs without text tokens from then on, as it did before.

    Args:
        transformer: A model of diffusers, or a folded one.
        family: Its family.
    """
    transformer.set_submodule("context_embedder", Nothing(transformer.inner_dim))
    for block in transformer.transformer_blocks:
        for name in family.text_stream:
            block.set_submodule(name, Silent())
    if family.text_modulation is not None:
        linear = transformer.get_submodule(family.text_modulation)
        if isinstance(linear, nn.Linear):  # else it is folded
            transformer.set_submodule(family.text_modulation, Nothing(linear.out_features))


def has_text_stream(transformer: Any) -> bool:
    """Say whether a transformer can take text tokens."""
    return not isinstance(transformer.context_embedder, Nothing)
