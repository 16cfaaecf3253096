"""Collects the outputs of a FLUX backbone's layers, for losses on features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fluxsr.protocols import VelocityModel

BLOCKS = ("transformer_blocks", "single_transformer_blocks")


class FeatureTap:
    """Records the image tokens that leave each transformer block, in the passes that are asked for.

    Nothing is recorded outside :meth:`record`: not by other passes, and not when gradient checkpointing runs a block again in
    the backward pass. Gradients flow through the collected tensors.

    Args:
        model: A :class:`fluxsr.models.FluxBackbone` or any module with FLUX's ``transformer_blocks`` and
            ``single_transformer_blocks`` (also deeper inside, and under LoRA).
        layers: Blocks to record, counted through both kinds in order; negative counts from the end; all by default.

    Raises:
        ValueError: If the model has no such blocks, or not that many.

    Example:
        ``with tap.record() as features: backbone(xt, t)`` leaves in ``features`` one ``(B, N, D)`` tensor per layer.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int] | None = None) -> None:
        owner = find_transformer(model)
        blocks = find_blocks(owner)
        chosen = range(len(blocks)) if layers is None else layers
        for layer in chosen:
            if not -len(blocks) <= layer < len(blocks):
                raise ValueError(f"layer {layer} does not exist: the model has {len(blocks)} blocks")
        self._features: list[Tensor] | None = None
        self._text_tokens = 0
        self._handles = [blocks[layer].register_forward_hook(self._hear) for layer in chosen]
        self._count = owner.register_forward_pre_hook(self._count_text, with_kwargs=True)

    def __len__(self) -> int:
        """Return how many layers are tapped."""
        return len(self._handles)

    @contextmanager
    def record(self) -> Iterator[list[Tensor]]:
        """Collect during the body, into the list that it yields: one ``(B, N, D)`` tensor per tapped layer and pass."""
        before = self._features
        features: list[Tensor] = []
        self._features = features
        try:
            yield features
        finally:
            self._features = before

    def recording(self, velocity: VelocityModel, passes: list[list[Tensor]]) -> VelocityModel:
        """Return a velocity model that calls another one, which is tapped, and appends the features of each call."""

        def call(xt: Tensor, t: Tensor) -> Tensor:
            with self.record() as features:
                v = velocity(xt, t)
            passes.append(features)
            return v

        return call

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._count.remove()

    def _count_text(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
        self._text_tokens = 0 if text is None else text.shape[1]

    def _hear(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._features is not None:
            # (text, image), or one tensor of text and then image tokens.
            self._features.append(output[:, self._text_tokens :] if isinstance(output, Tensor) else output[1])


def find_transformer(model: nn.Module) -> nn.Module:
    """Return the module inside a model that has FLUX's two lists of blocks; a ``ValueError`` where there is none."""
    for module in model.modules():
        if all(isinstance(getattr(module, name, None), nn.ModuleList) for name in BLOCKS):
            return module
    raise ValueError(f"{type(model).__name__} has no {' and '.join(BLOCKS)}: FeatureTap taps FLUX transformers")


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Return FLUX's blocks, the double-stream ones first; a ``ValueError`` where there are none."""
    owner = find_transformer(model)
    return [block for name in BLOCKS for block in getattr(owner, name)]
