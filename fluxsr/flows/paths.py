"""Computes the straight path between two latents, and checks its inputs.

One convention, FLUX's own: ``t = 0`` is data, ``t = 1`` is the other end (noise, or the low-resolution image).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fluxsr.protocols import VelocityModel


def expand_times(t: Tensor, like: Tensor) -> Tensor:
    """Reshape times ``(B,)`` to broadcast over ``like`` ``(B, ...)``, on its device.

    The result is float32 even beside bfloat16 latents (float64 beside float64 ones). In bfloat16 there are only 128
    values between 0.5 and 1, so paths are computed in the wider type and their result is rounded once.

    Raises:
        ValueError: If ``t`` is not one number per sample of ``like``.
    """
    check_tensor_times(t)
    if t.ndim != 1 or t.shape[0] != like.shape[0]:
        raise ValueError(f"times must have shape ({like.shape[0]},), one per sample of the batch; got {tuple(t.shape)}")
    wide = t.to(device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    return wide.reshape(-1, *([1] * (like.ndim - 1)))


def linear_path(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Return ``xt = (1 - t) x0 + t x1``, the straight path from the data end ``x0`` ``(B, ...)``, at times ``(B,)``.

    Raises:
        ValueError: If the shapes of the ends differ, or ``t`` is not one number per sample.

    Source: rectified flow's straight path; FluxSR (arXiv 2502.01993), section 3.
    """
    check_same_shape(x0=x0, x1=x1)
    return mix(x0, x1, expand_times(t, x0))


def mix(x0: Tensor, x1: Tensor, weight: Tensor) -> Tensor:
    """Return ``(1 - weight) x0 + weight x1`` in the dtype of ``x0``; exact at both ends.

    Not ``torch.lerp``, which needs the weight in the latents' own dtype.
    """
    return ((1 - weight) * x0 + weight * x1).to(x0.dtype)


def step_to_data(xt: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """Return the one-step estimate ``x0_hat = xt - t v`` of the data end, in the dtype of ``xt``."""
    return (xt - expand_times(t, xt) * velocity).to(xt.dtype)


def velocity_at(velocity: VelocityModel, xt: Tensor, t: Tensor) -> Tensor:
    """Return ``velocity(xt, t)``; a ``ValueError`` unless it is a tensor shaped as ``xt``."""
    v: Any = velocity(xt, t)
    if not isinstance(v, Tensor):
        advice = "model(xt, t)[0]" if isinstance(v, tuple | list) else "model(xt, t).sample"
        raise ValueError(
            f"the velocity model returned a {type(v).__name__}, not a tensor: return {advice}, for example"
        )
    if v.shape != xt.shape:
        raise ValueError(f"the velocity model returned shape {tuple(v.shape)} for a state of shape {tuple(xt.shape)}")
    return v


def check_times(t: Any, batch_size: int, lowest: float = 0.0) -> Tensor:
    """Return times, or raise a ``ValueError`` unless they are one finite number per row in ``[lowest, 1]``, to 1e-4."""
    check_tensor_times(t)
    if t.shape != (batch_size,):
        raise ValueError(f"times must have shape ({batch_size},), one per sample of the batch; got {tuple(t.shape)}")
    if t.is_meta or torch.compiler.is_compiling():
        return t
    if not bool(((t >= lowest - 1e-4) & (t <= 1 + 1e-4)).all()):  # false for NaN, too
        raise ValueError(f"times must lie in [{lowest:g}, 1], got {t.tolist()}")
    return t


def check_tensor_times(t: Any) -> None:
    """Raise a ``ValueError`` unless times are a tensor, saying how to make one."""
    if not isinstance(t, Tensor):
        advice = f"torch.full((batch,), {t})" if isinstance(t, (int, float)) else "torch.as_tensor(...)"
        raise ValueError(f"times must be a tensor with one time per sample, got {t!r}: {advice}")


def check_same_shape(**tensors: Tensor) -> None:
    """Check that all named tensors are tensors, share one shape and have a floating dtype.

    Raises:
        ValueError: Naming the tensors and their shapes or dtypes.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor of latents (B, C, h, w), got {type(tensor).__name__}")
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"these latents must have one shape: {shapes}")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be a floating-point tensor, got {tensor.dtype}; encode images first")


def check_finite(**tensors: Tensor) -> None:
    """Check that all named tensors are finite: one NaN in the data would silently ruin every weight.

    Values are looked at on the CPU only, and not where a compiler traces. Looking would make the host wait for a GPU
    in every step; :class:`fluxsr.training.OneStepSR` stops there at a loss that is not finite.

    Raises:
        ValueError: Naming the tensor and the rows of the batch that hold NaN or infinity.
    """
    if torch.compiler.is_compiling():
        return
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            continue
        # One reduction and one synchronization per tensor; only the failing case looks closer.
        if not bool(torch.isfinite(tensor.sum(dtype=torch.float32))) and not bool(torch.isfinite(tensor).all()):
            rows = torch.isfinite(tensor).flatten(1).all(dim=1).logical_not().nonzero().flatten().tolist()
            raise ValueError(f"{name} holds NaN or infinity in rows {rows} of the batch; check the data or its encoder")
