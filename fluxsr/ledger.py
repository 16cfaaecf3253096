"""Records which tensors are alive at each moment of a training step, in bytes, and how many FLOPs it takes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ACTIVATIONS = "activations"  # first part of the kind of everything that nobody claims


class NotPlannable(ValueError):
    """An operation of the step needs the values of a tensor, and a plan has shapes alone."""

    def __init__(self, operation: str, place: str = "") -> None:
        super().__init__(
            f"this step can't be planned: {operation}{place and f' in {place}'} needs the values of a tensor, and a plan has "
            "shapes alone; choose rows by the times, which are real, or measure a run"
        )
        self.operation = operation


@dataclass
class Peak:
    """The largest number of live bytes in some stretch, and what they were: kind -> bytes."""

    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)


class Ledger(TorchDispatchMode):
    """Keeps account of every storage that an operation hands out, from then until it is freed.

    Views share their storage and count once. What a kernel takes and frees inside itself is not seen. It works on real
    tensors and on the meta device. There an operation that needs values raises :class:`NotPlannable`; but while ``answers`` is
    set, a single number that is asked for is ``answer`` instead, 1.

    Args:
        shares: Kind -> the part of it that this process holds (sharded, quantized); 1 for the others.
    """

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.shares = dict(shares or {})
        self.phase = "setup"
        self.answers = True
        self.answer = 1
        self.live: dict[str, float] = {}
        self.total = 0.0
        self.peaks: dict[str, Peak] = {}
        self.flops: dict[str, float] = {}
        self.at_start: dict[str, float] = {}
        self._known: dict[int, tuple[str, weakref.ref[Any]]] = {}

    def own(self, tensor: Tensor, kind: str) -> None:
        """Say what a tensor is; before the first operation it is counted from here on."""
        key = tensor.untyped_storage()._cdata
        if key not in self._known:
            self._enter(tensor, kind)
            return
        before, reference = self._known[key]
        size = tensor.untyped_storage().nbytes()
        self._add(before, -size)
        self._known[key] = (kind, reference)
        self._add(kind, size)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Book what happens in the body under ``phase``."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def reset(self) -> None:
        """Start anew: forget peaks and FLOPs, and note as ``at_start`` what is alive."""
        self.at_start = dict(self.live)
        self.peaks.clear()
        self.flops.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            func is torch.ops.aten._to_copy.default
            and args[0].is_meta
            and kwargs.get("device", args[0].device).type != "meta"
        ):
            if not self.answers and args[0].numel() > 1:
                raise NotPlannable(str(func._overloadpacket))
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype", args[0].dtype))  # a number for a log
        if self.answers and func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return self.answer
        try:
            out = func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if not any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((args, kwargs))):
                raise
            raise NotPlannable(str(func._overloadpacket)) from error
        packet = func._overloadpacket
        if packet in flop_registry:
            count = flop_registry[packet](*args, **kwargs, out_val=out)
            self.flops[self.phase] = self.flops.get(self.phase, 0.0) + count
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._known:
                self._enter(leaf, f"{ACTIVATIONS}: {self.phase}")
        return out

    def _enter(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._known[key] = (kind, weakref.ref(storage, self._leaver(key, size)))
        self._add(kind, size)

    def _leaver(self, key: int, size: int) -> Callable[[Any], None]:
        def leave(_: Any) -> None:
            kind, _reference = self._known.pop(key)
            self._add(kind, -size)

        return leave

    def _add(self, kind: str, size: int) -> None:
        share = self.shares.get(kind, 1.0) * size
        self.live[kind] = self.live.get(kind, 0.0) + share
        self.total += share
        peak = self.peaks.setdefault(self.phase, Peak())
        if self.total > peak.total:
            peak.total, peak.parts = self.total, dict(self.live)
