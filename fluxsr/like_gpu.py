"""Applies a GPU's rules to the meta device: CUDA's autocast rules and fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

# Autocast's lists, by the functions' names ("Autocast Op Reference" of PyTorch's documentation). On the meta device autocast
# itself does nothing.
_LOWER = {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "einsum", "conv1d", "conv2d", "conv3d"} | {
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "scaled_dot_product_attention", "__matmul__", "__rmatmul__",
}  # fmt: skip
_CPU_FLOAT32 = {"mse_loss", "cosine_similarity", "smooth_l1_loss", "cdist", "grid_sample", "huber_loss"}
_CUDA_FLOAT32 = {"mse_loss", "cosine_similarity", "smooth_l1_loss", "l1_loss", "cdist"} | {
    "layer_norm", "group_norm", "softmax", "log_softmax", "softplus", "normalize", "norm", "sum", "prod", "cumsum",
    "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal", "exp", "log", "log1p", "expm1",
}  # fmt: skip

# Functions in which real indices choose rows of a tensor without values: PyTorch takes both together.
_INDEXING = {"__getitem__", "__setitem__", "__get__", "index_select", "index_put", "index_put_", "take_along_dim"} | {
    "split", "chunk", "unbind", "tensor_split", "is_meta",
}  # fmt: skip


class FusedRMSNorm(torch.autograd.Function):
    """The shapes of CUDA's fused root-mean-square norm, which keeps its input and one number per row; no arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        """Return a tensor as ``x``."""
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tensors as ``x`` and, where it is trained, ``weight``."""
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class LikeDevice(TorchFunctionMode):
    """Runs functions on meta tensors as a device would: autocast, attention and norms that never materialize their maps.

    Times are real tensors on the CPU, also when they are moved to the meta device: an objective may choose rows by their
    values. Where such a tensor meets one without values, only its shape goes on.
    """

    def __init__(self, cuda: bool = True) -> None:
        super().__init__()
        self.cuda = cuda
        self._float32 = _CUDA_FLOAT32 if cuda else _CPU_FLOAT32
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "to" and not args[0].is_meta and _names_meta((*args[1:], *kwargs.values())):
            dtype = next((value.dtype for value in args[1:] if isinstance(value, Tensor)), None)
            dtype = next((value for value in (*args[1:], *kwargs.values()) if isinstance(value, torch.dtype)), dtype)
            return args[0].to(dtype or args[0].dtype)
        if name not in _INDEXING:
            args, kwargs = _on_one_device(args, kwargs)
        autocast = torch.is_autocast_enabled("cpu")
        if autocast and name in _LOWER:
            dtype = torch.get_autocast_dtype("cpu")
            args = tuple(self._lower(value, dtype) for value in args)
            kwargs = {key: self._lower(value, dtype) for key, value in kwargs.items()}
        elif autocast and name in self._float32 and "dtype" not in kwargs:
            args = tuple(_to_float32(value) for value in args)
        if func is Tensor.backward:
            # A mode is off inside its own call, and checkpointed blocks run again in here.
            with self:
                gradient = kwargs.pop("gradient", None)
                return torch.autograd.backward(args[0], *(args[1:] or (gradient,)), **kwargs)
        if name == "scaled_dot_product_attention":
            return self._attention(func, *args, **kwargs)
        if name == "rms_norm" and self.cuda:
            return self._rms_norm(func, *args, **kwargs)
        return func(*args, **kwargs)

    def forget_casts(self) -> None:
        """Drop what autocast keeps: it does so where its outermost context ends."""
        self._cache.clear()

    def _lower(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._lower(one, dtype) for one in value)
        if not (isinstance(value, Tensor) and value.is_meta and value.is_floating_point()):
            return value
        if value.dtype in (dtype, torch.float64):
            return value
        if not (value.requires_grad and value.is_leaf and value.dtype == torch.float32 and torch.is_grad_enabled()):
            return value.to(dtype)
        # Autocast casts a trained weight once and keeps the copy until the step's context ends.
        if id(value) not in self._cache:
            self._cache[id(value)] = (value, value.to(dtype))
        return self._cache[id(value)][1]

    def _attention(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        query, key, value = args[:3] if len(args) >= 3 else (kwargs["query"], kwargs["key"], kwargs["value"])
        if not query.is_meta:
            return func(*args, **kwargs)
        if self.cuda:
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]

    def _rms_norm(self, func: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
        if not x.is_meta or (weight is not None and weight.dtype != x.dtype):  # PyTorch doesn't fuse mixed dtypes
            return func(x, *args, **kwargs)
        return FusedRMSNorm.apply(x, weight)


@contextmanager
def like_device(mode: LikeDevice) -> Iterator[None]:
    """Run the body under a mode, with ``torch.autocast("meta")`` meaning the CPU's, whose state the mode reads.

    PyTorch has no autocast for the meta device and no way to register one, so three of its names are replaced for the time of
    the body. They are the only names that this library replaces anywhere.
    """
    autograd: Any = torch.autograd
    original, clear, overridden = torch.autocast, torch.clear_autocast_cache, autograd.has_torch_function

    class Autocast(original):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)

    def forget() -> None:
        mode.forget_casts()
        clear()

    torch.autocast, torch.clear_autocast_cache = Autocast, forget  # type: ignore[misc]
    # `torch.autograd.grad` then runs checkpointed blocks under the mode, as `backward` does.
    autograd.has_torch_function = lambda _: False
    try:
        with mode:
            yield
    finally:
        torch.autocast, torch.clear_autocast_cache = original, clear  # type: ignore[misc]
        autograd.has_torch_function = overridden


def _to_float32(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.is_meta and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value


def _names_meta(values: Any) -> bool:
    return any(str(getattr(value, "device", value)) == "meta" for value in values)


def _on_one_device(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Let real tensors beside tensors without values go on as shapes; numbers, of no dimension, may stay."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not any(leaf.is_meta for leaf in leaves) or all(leaf.is_meta or not leaf.ndim for leaf in leaves):
        return args, kwargs

    def shape_of(leaf: Any) -> Any:
        real = isinstance(leaf, Tensor) and leaf.ndim and not leaf.is_meta
        return torch.empty_like(leaf, device="meta") if real else leaf

    moved: tuple[Any, Any] = tree_map(shape_of, (args, kwargs))
    return moved
