"""Implements losses on what a transformer computes inside: token features and attention maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fluxsr.losses import functional
from fluxsr.losses._checks import check_tensor
from fluxsr.losses._reduction import Reduction, check_reduction, reduced


class AttentionDiversificationLoss(nn.Module):
    """FluxSR's ADL on the output tokens of transformer layers: makes tokens differ, which lowers periodic artefacts.

    ``mean over layers of mean_i cos(A_i, A_bar)``, then the mean over the batch (paper eq. 22, 23). Per layer it is
    :func:`fluxsr.losses.functional.token_diversity`.

    Args:
        reduction: ``"mean"`` over the samples of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the loss of one ``(B, N, D)`` per layer; N and D may differ between layers, B may not (``ValueError``)."""
        _check_layers(features, "features", "(batch, tokens, width)")
        layers = torch.stack([functional.token_diversity(tokens) for tokens in features])
        return reduced(layers.mean(dim=0), self.reduction)


class AttentionMapDiversificationLoss(nn.Module):
    """The ADL of "Robustifying Token Attention for Vision Transformers" (ICCV 2023), on softmax attention maps.

    FluxSR's loss of that name is :class:`AttentionDiversificationLoss`. Per layer this one is
    :func:`fluxsr.losses.functional.attention_map_diversity`; layers and batch are averaged.

    Args:
        reduction: See :class:`AttentionDiversificationLoss`.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the loss of softmax attention, ``(B, heads, N, N)`` of one layer or a sequence of such."""
        layers = [maps] if isinstance(maps, Tensor) else maps
        _check_layers(layers, "maps", "(batch, heads, tokens, tokens)")
        values = torch.stack([functional.attention_map_diversity(layer) for layer in layers])
        return reduced(values.mean(dim=0), self.reduction)


def _check_layers(layers: Sequence[Tensor], name: str, shape: str) -> None:
    if isinstance(layers, (Tensor, Mapping)):
        kind, advice = ("tensor", "wrap it in a list") if isinstance(layers, Tensor) else ("dict", "list(x.values())")
        raise ValueError(f"{name} must be a sequence of tensors {shape}, one per layer, got a {kind}: {advice}")
    if len(layers) == 0:
        raise ValueError(f"{name} is empty: hand over at least one layer's tensor of shape {shape}")
    for index, layer in enumerate(layers):
        check_tensor(f"{name}[{index}]", layer)
    if len({layer.shape[:1] for layer in layers}) > 1:
        raise ValueError(f"the layers of {name} differ in batch size: {[tuple(layer.shape) for layer in layers]}")
