"""Implements discriminators: light heads on the features of a frozen network, of the backbone itself for latents."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fluxsr.models.features import FeatureTap
from fluxsr.models.flux import FluxBackbone
from fluxsr.protocols import VelocityModel


class FeatureDiscriminator(nn.Module):
    """Judges features: one logit per position and layer, by a small multilayer perceptron of ``width`` units for each layer."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.heads = nn.ModuleList(_head(one, width) for one in channels)

    def judge(self, features: Sequence[Tensor], *, frozen: bool = False) -> list[Tensor]:
        """Return the heads' logits ``(B, N)`` on features; ``frozen`` keeps the gradient from the heads' weights."""
        logits = []
        for head, feature in zip(self.heads, features, strict=True):
            weights = {name: weight.detach() if frozen else weight for name, weight in head.named_parameters()}
            logits.append(functional_call(head, weights, feature).squeeze(-1))
        return logits


class LatentDiscriminator(FeatureDiscriminator):
    """Judges whether latents are real: one logit per image token and tapped layer.

    The features are those of the frozen base, without any adapter; if the backbone is trained in full, they are those of
    a frozen copy of its start. Only the heads are trained, each a small multilayer perceptron on the tokens of one layer.

    Args:
        backbone: The generator's backbone. With adapters its base is shared: no memory beside the heads'.
        layers: Blocks whose outputs are looked at, counted from the first double-stream block; every block by default.
        width: Hidden units of each head; 64 is our default (FlowSR publishes no heads).
        time: Time at which the features are taken, in ``[0, 1]``: 0, the data end, is our default.

    Raises:
        ValueError: If the model has no such layers, or a number is out of range.
    """

    def __init__(
        self, backbone: FluxBackbone, layers: Sequence[int] | None = None, width: int = 64, time: float = 0.0
    ) -> None:
        if not 0 <= time <= 1:
            raise ValueError(f"time must lie in [0, 1], got {time}; 0 is the data end")
        shared = backbone.default_role is not None
        frozen = backbone if shared else deepcopy(backbone).requires_grad_(False)
        tap = FeatureTap(frozen, layers)
        config: Any = frozen.transformer.config
        super().__init__([config.num_attention_heads * config.attention_head_dim] * len(tap), width)
        self.time = time
        self.copy = None if shared else frozen
        self._tap = tap
        # The base is found through a closure: as an attribute it would be registered, saved and counted a second time.
        self._base: VelocityModel | None = (lambda xt, t: backbone.as_role(None)(xt, t)) if shared else None

    def features(self, latents: Tensor) -> list[Tensor]:
        """Return what each tapped layer makes of ``(B, C, h, w)`` latents: ``(B, N, D)`` each, with gradient to them."""
        velocity = self._base if self.copy is None else self.copy
        assert velocity is not None
        with self._tap.record() as features:
            velocity(latents, torch.full((len(latents),), self.time, device=latents.device))
        return [feature.float() for feature in features]

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Return the logits ``(B, N)`` of ``(B, C, h, w)`` latents, one tensor per tapped layer; positive means real."""
        return self.judge(self.features(latents))


def _head(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        # Features of different layers differ in scale by orders of magnitude.
        nn.LayerNorm(channels, elementwise_affine=False),
        nn.Linear(channels, width),
        nn.SiLU(),
        nn.Linear(width, 1),
    )
