"""Takes layers out of a transformer and puts small ones in their place: the text stream, and in training the modulation.

The AdaLN modulation linears are 3.23 of FLUX.1's 11.90 billion parameters, frozen under a LoRA, and see nothing but the time,
the guidance and the pooled prompt. An objective that draws its times from a grid (:class:`fluxsr.flows.GridTimes`) needs their
outputs there and nothing else: about 2 MB a time in bfloat16 instead of 6.5 GB. Without text tokens nothing flows through the
text stream, 18 % of FLUX.2-klein-4B.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.models.families import Family, is_folded


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
    """Take out, in place, what works on text tokens alone; the model runs without them as it did before."""
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


class ModulationTable(nn.Module):
    """Stands in for a transformer's time embedder: hands on which rows of the tables a batch's times are.

    The rows travel as the embedding would, as an argument of every block, so that gradient checkpointing recomputes a pass with
    the rows that it ran with. ``times`` are ``(T,)`` float32, ascending.
    """

    times: Tensor

    def __init__(self, times: Tensor) -> None:
        super().__init__()
        self.register_buffer("times", times, persistent=False)
        self._rows: Tensor | None = None

    def select(self, t: Tensor) -> None:
        """Choose the rows of the next pass; a time that is not in the table is a ``ValueError``."""
        t = t.to(self.times)
        rows = torch.searchsorted(self.times, t).clamp(max=len(self.times) - 1)
        wrong = [] if rows.is_meta else t[self.times[rows] != t].tolist()
        if wrong:
            raise ValueError(
                f"the modulation table has no row for t = {wrong[0]:g}, only for {len(self.times)} times from "
                f"{float(self.times[0]):g} to {float(self.times[-1]):g}; run it at these, or load the model without a table"
            )
        self._rows = rows

    def forward(self, *_: Tensor) -> Tensor:
        """Return the rows ``(B,)`` in place of the embedding ``(B, D)``."""
        assert self._rows is not None, "select(t) comes before the pass"
        return self._rows


class _Rows(nn.Module):
    """Stands where a modulation layer's activation was: looks its output up. The linear behind it becomes the identity."""

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        return self.values[rows]


def table_of(transformer: Any, family: Family) -> ModulationTable | None:
    """Return a transformer's modulation table, if it has one."""
    embedder = transformer.get_submodule(family.embedder)
    return embedder if isinstance(embedder, ModulationTable) else None


@torch.no_grad()
def tabulate_modulation(backbone: Any, times: Tensor) -> None:
    """Replace a backbone's frozen modulation layers, in place, by their outputs at some times.

    At these times the model is what it was, bit for bit at batch size 1 (at others a matrix product rounds differently: 1e-6
    in float32); at any other time it raises ``ValueError``. It can no longer be folded, fused or saved whole; adapters are
    saved as usual. Do it before the model goes to a device.

    Args:
        backbone: A :class:`fluxsr.models.FluxBackbone` whose modulation is frozen: with a LoRA, or not trained.
        times: All that it will be called at, ``(T,)`` in ``[0, 1]``; :meth:`fluxsr.flows.FlowObjective.time_grid` says which.

    Raises:
        ValueError: If a modulation layer or the time embedder is trained or adapted, the model is folded or tabulated already,
            or of a family whose blocks share their modulation.
    """
    transformer, family = backbone.transformer, backbone.family
    if not family.tables:
        raise ValueError(
            f"a modulation table is of no use to {family.name}, whose blocks share their modulation layers (4 % of klein-4B): "
            "leave modulation_table out, and text_stream: false saves 18 % without text tokens"
        )
    if table_of(transformer, family) is not None or is_folded(transformer.config):
        raise ValueError("this model's modulation layers are constants already; load the whole model")
    for name, parameter in transformer.named_parameters():
        owner, _, adapter = name.partition(".lora_")
        inside = family.modulation.match(owner) or owner.startswith(family.embedder)
        if inside and (adapter or parameter.requires_grad):
            raise ValueError(
                f"{name!r} is {'an adapter' if adapter else 'trained'}, so its outputs are no constants: train with a LoRA "
                "that leaves norm*.linear and time_text_embed alone (the default targets do), or without a modulation table"
            )
    times = times.detach().float().unique().cpu()
    embedder, dtype = transformer.get_submodule(family.embedder), backbone.dtype
    inputs = [family.embed(embedder, t, backbone.conditions, dtype) for t in times.tolist()]
    for name, linear in list(transformer.named_modules()):
        if family.modulation.fullmatch(name):
            norm = name.removesuffix(".linear")
            # One time after the other: a matrix product over all of them would round otherwise.
            transformer.set_submodule(f"{norm}.silu", _Rows(torch.cat([linear(features) for features in inputs])))
            transformer.set_submodule(name, nn.Identity())
    transformer.set_submodule(family.embedder, ModulationTable(times.to(inputs[0].device)))
