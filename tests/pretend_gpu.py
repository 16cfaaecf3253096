"""A GPU that is only pretended: values are real and lie on the CPU, and each storage is said to be on ``cuda:0`` or not.

An operation on tensors of both kinds raises, as on a machine with a GPU, and everything that would make the host wait is
counted with the line of the library that asked. Kernels, memory and streams are not pretended.
"""

from __future__ import annotations

import traceback
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
# What may take tensors of both kinds: copies, and a choice of rows by an index on the CPU.
CROSSING = {aten.copy_, aten._to_copy}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim}


class Machine:
    """Which storages are on the GPU, and what made the host wait, by the line of this library that asked for it."""

    def __init__(self) -> None:
        self._there: dict[int, weakref.ref] = {}
        self._constants: dict[int, weakref.ref] = {}  # made inside an operator, where its kernel would make them
        self._pinned: dict[int, weakref.ref] = {}
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()  # to the GPU, by the memory that they come from

    def has(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._there

    def is_constant(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._constants

    def put(self, tensor: Tensor, into: dict | None = None) -> Tensor:
        into = self._there if into is None else into
        storage = tensor.untyped_storage()
        key = storage._cdata
        into.setdefault(key, weakref.ref(storage, lambda _: into.pop(key, None)))
        return tensor

    def wait(self, what: str) -> None:
        frames = [
            f for f in traceback.extract_stack() if "/fluxsr/" in f.filename and "site-packages" not in f.filename
        ]
        where = f"{frames[-1].filename.split('/fluxsr/')[-1]}:{frames[-1].lineno}" if frames else "elsewhere"
        self.waits[f"{what} {where}"] += 1

    def pinned(self, tensor: Tensor) -> Tensor:
        """Return a copy in pinned memory, from which the host need not wait for a copy to the GPU."""
        with _disable_current_modes():
            copy = tensor.detach().clone()
        return self.put(copy, self._pinned)

    def move(self, tensor: Tensor, to_gpu: bool, non_blocking: bool = False) -> Tensor:
        if self.has(tensor) == to_gpu:
            return tensor
        if to_gpu:
            self.copies["pinned" if tensor.untyped_storage()._cdata in self._pinned else "pageable"] += 1
        if not (to_gpu and non_blocking):
            self.wait("copy to the GPU" if to_gpu else "copy to the host")
        return _Moved.apply(tensor, self, to_gpu)


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, machine: Machine, to_gpu: bool) -> Tensor:
        ctx.machine, ctx.to_gpu = machine, to_gpu
        with _disable_current_modes():
            copy = tensor.detach().clone()
        return machine.put(copy) if to_gpu else copy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.machine.move(gradient, not ctx.to_gpu, True), None, None


class _Kernels(TorchDispatchMode):
    """Sees every operation: refuses a mixture, and says where its results are."""

    def __init__(self, machine: Machine, calls: _Calls) -> None:
        super().__init__()
        self.machine, self.calls = machine, calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        machine, packet = self.machine, func._overloadpacket
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = any(map(machine.has, inputs))
        if on_gpu and packet not in CROSSING:
            indices = {id(i) for i in tree_leaves(args[1])} if packet in INDEXING else set()
            strangers = [
                one for one in inputs
                if one.ndim and one.numel() and id(one) not in indices and not machine.has(one) and not machine.is_constant(one)
            ]  # fmt: skip
            if strangers:
                raise RuntimeError(
                    f"{func} of tensors on cuda:0 and on the cpu, {[tuple(one.shape) for one in strangers]}"
                )
        by_mask = packet in INDEXING and any(
            isinstance(i, Tensor) and i.dtype == torch.bool and machine.has(i) for i in tree_leaves(args[1])
        )
        if on_gpu and (packet in WAITING or by_mask):
            machine.wait(packet.__name__)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and not any(leaf is one for one in inputs):
                if on_gpu and packet is not aten.copy_:
                    machine.put(leaf)
                elif not inputs and not self.calls.making:
                    machine.put(leaf, machine._constants)
        return out


class _Calls(TorchFunctionMode):
    """Sees every call from Python: devices are pretended, moves are copies, new tensors land where they were asked for."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.making = 0  # a tensor that Python asks for, not a kernel's constant

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, machine, name = dict(kwargs or {}), self.machine, getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and machine.has(first) and not first.is_meta:
            if func == Tensor.device.__get__:
                return GPU
            if func == Tensor.is_cuda.__get__:
                return True
            if name == "numpy":
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            if name == "pin_memory":
                raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned")
            if name == "tolist":
                machine.wait("tolist")
        if name == "pin_memory":
            return machine.pinned(first)
        if name == "backward" or func is torch.autograd.grad:
            with self:  # a mode is off inside its own call, and checkpointed blocks run again in here
                if func == Tensor.backward:
                    return torch.autograd.backward(args[0], *(args[1:] or (kwargs.pop("gradient", None),)), **kwargs)
                return func(*args, **kwargs)
        if first is not None and name in ("to", "cpu", "cuda"):
            return self._to(name, first, args[1:], kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            if "generator" in kwargs and kwargs["generator"] is not None and kwargs["generator"].device.type == "cpu":
                raise RuntimeError(f"{name} on cuda with a CPU generator")
            made = self._make(func, args, {**kwargs, "device": "cpu"})
            return machine.put(made)
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
            return self._make(func, args, kwargs)
        return func(*args, **kwargs)

    def _make(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.making += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.making -= 1

    def _to(self, name: str, tensor: Tensor, rest: Any, kwargs: dict[str, Any]) -> Tensor:
        given = [*rest, *(kwargs.pop(key) for key in ("device", "other", "dtype") if key in kwargs)]
        wanted = {"cpu": False, "cuda": True}.get(name)
        dtype = None
        for one in given:
            if isinstance(one, str | torch.device):
                if torch.device(one).type == "meta":
                    return Tensor.to(tensor, "meta")
                wanted = torch.device(one).type == "cuda"
            elif isinstance(one, Tensor):
                wanted, dtype = self.machine.has(one), one.dtype
            elif isinstance(one, torch.dtype):
                dtype = one
        moved = tensor if wanted is None else self.machine.move(tensor, wanted, bool(kwargs.get("non_blocking")))
        changed = moved if dtype is None else Tensor.to(moved, dtype)
        return changed.clone() if kwargs.get("copy") and changed is tensor else changed


@contextmanager
def pretend_gpu() -> Iterator[Machine]:
    """In the body ``device="cuda"`` works; yields what counts the waits."""
    machine = Machine()
    calls, autocast = _Calls(machine), torch.autocast

    class Autocast(autocast):
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    def enabled(kind: str | None = None) -> bool:
        return real_enabled("cpu" if kind in (None, "cuda") else kind)

    real_enabled = torch.is_autocast_enabled
    by_shape = {"default": lambda tensor: (tensor.shape, tensor.dtype)}  # checkpointing compares devices, too
    with ExitStack() as stack:
        stack.enter_context(patch("torch.autocast", Autocast))
        stack.enter_context(patch("torch.amp.autocast", Autocast))
        stack.enter_context(patch("torch.is_autocast_enabled", enabled))
        stack.enter_context(patch("torch.cuda.current_stream"))
        stack.enter_context(patch("torch.autograd.has_torch_function", lambda _: False))
        stack.enter_context(patch.dict("torch.utils.checkpoint._allowed_determinism_checks_to_fns", by_shape))
        stack.enter_context(_Kernels(machine, calls))
        stack.enter_context(calls)
        yield machine
