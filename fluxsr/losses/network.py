"""Image losses made of a frozen network: what LPIPS, TV-LPIPS and DISTS share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.losses._checks import FirstBatch, check_images


class FrozenNetwork(nn.Module):
    """Holds a network that is a constant: never trained, never saved, never rounded.

    It stays in evaluation mode after ``.train()``, keeps its dtype after ``.to(torch.bfloat16)`` or ``.half()`` (moves
    to a device work), and its weights are left out of ``state_dict()``: a checkpoint doesn't carry 59 MB of VGG.

    Args:
        net: called ``net(x, y)``.
        autocast: dtype that its convolutions compute in; ``None``: that of its weights.
    """

    def __init__(self, net: nn.Module, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.autocast = autocast

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in; float32 for one without weights."""
        return next((p.dtype for p in self.net.parameters() if p.is_floating_point()), torch.float32)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Call the network in its own dtype, outside of the surrounding autocast."""
        with torch.autocast(x.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            distance: Tensor = self.net(x.to(self.dtype), y.to(self.dtype))
        return distance

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Do nothing: there is no training mode."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetwork:
        def move(tensor: Tensor) -> Tensor:
            # Asked with an empty tensor: where would this go? A rounded weight couldn't be restored afterwards.
            return tensor.to(fn(tensor.new_empty(0)).device) if tensor.is_floating_point() else fn(tensor)

        super()._apply(move, recurse)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing: see the class."""
        return kwargs.get("destination") if kwargs.get("destination") is not None else {}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Strict loading asks for every key; what was left out when saving is what is here already.
        present: Mapping[str, Tensor] = self.net.state_dict()
        for name, value in present.items():
            state_dict.setdefault(f"{prefix}net.{name}", value)
        super()._load_from_state_dict(state_dict, prefix, *args)


class WeightedView(NamedTuple):
    """One term of a loss: ``weight * net(view(sr_image), view(hr_image))``."""

    weight: float
    view: Callable[[Tensor], Tensor]


class NetworkLoss(nn.Module):
    """Base of the losses ``(sr_image, hr_image) -> scalar`` that are a sum of one network's distances.

    The gradient goes into ``sr_image`` only. It is computed term by term in the forward pass, so that the activations
    of two terms never coexist and none of them waits for ``backward()``; hence it can't be differentiated again
    unless ``double_backward`` is set, which costs the memory of an ordinary graph.

    Args:
        net: the network, called ``net(x, y)``.
        views: the terms.
        double_backward: see above.
        compute_dtype: ``"bfloat16"`` (or ``"float16"``) for the convolutions alone: features are compared, and the gradient is
            returned, in float32; ``None`` for float32 all through.

    Raises:
        ValueError: if ``compute_dtype`` is none of these.
    """

    def __init__(
        self,
        net: nn.Module,
        views: tuple[WeightedView, ...],
        *,
        double_backward: bool = False,
        compute_dtype: str | None = None,
    ) -> None:
        super().__init__()
        if compute_dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"compute_dtype must be bfloat16, float16 or None, got {compute_dtype!r}")
        reduced = compute_dtype not in (None, "float32")
        self.network = FrozenNetwork(net, getattr(torch, str(compute_dtype)) if reduced else None)
        self.views = views
        self.double_backward = double_backward
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        """Return the scalar loss, the mean over the batch, in float32.

        Args:
            sr_image: ``(B, 3, H, W)`` in [0, 1]. Values outside of it are taken as they are; only the first call looks for
                those of 8 bit, since looking makes a GPU wait.
            hr_image: of the same shape; no gradient goes into it.

        Raises:
            ValueError: wrong shapes, channels, dtype or device, values up to 255, or a gradient that is wanted in ``hr_image``
                alone.
            RuntimeError: in ``backward(create_graph=True)``, without ``double_backward``.
        """
        check_images(sr_image, hr_image, channels=3)
        self._check_first(sr_image, hr_image)
        if hr_image.requires_grad and not sr_image.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "only hr_image requires a gradient, and none goes into it: hand over the restored image first, "
                "loss(sr_image, hr_image)"
            )
        hr_image = hr_image.detach()
        if self.double_backward or not (torch.is_grad_enabled() and sr_image.requires_grad):
            return sum(
                (self._term(index, sr_image, hr_image) for index in range(len(self.views))), sr_image.new_zeros(())
            )
        value: Tensor = _GradientInside.apply(sr_image, hr_image, self)
        return value

    def _term(self, index: int, sr_image: Tensor, hr_image: Tensor) -> Tensor:
        weight, view = self.views[index]
        dtype = self.network.dtype
        distance = self.network(view(sr_image.to(dtype)), view(hr_image.to(dtype)))
        if distance.ndim and distance.shape[0] != sr_image.shape[0]:
            raise ValueError(
                f"the network returned shape {tuple(distance.shape)} for a batch of {sr_image.shape[0]}: it must be "
                "called as lpips.LPIPS is, net(x, y) -> (B, 1, 1, 1)"
            )
        return weight * distance.float().mean() if self.network.autocast is not None else weight * distance.mean()


class _GradientInside(torch.autograd.Function):
    """The sum of a loss's terms, storing nothing but its gradient in the image."""

    @staticmethod
    def forward(ctx: Any, sr_image: Tensor, hr_image: Tensor, loss: NetworkLoss) -> Tensor:
        leaf = sr_image.detach().to(loss.network.dtype).requires_grad_()
        value = leaf.new_zeros(())
        total: Tensor | None = None
        for index in range(len(loss.views)):
            with torch.enable_grad():
                term = loss._term(index, leaf, hr_image)
                (gradient,) = torch.autograd.grad(term, leaf)
            total = gradient if total is None else total.add_(gradient)
            value += term.detach()
            del term, gradient  # or this term's graph would live on beside the next one's
        ctx.save_for_backward(total)
        ctx.image_dtype = sr_image.dtype
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss computed its gradient in the forward pass and can't be differentiated twice "
                "(create_graph=True): construct it with double_backward=True"
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0]).to(ctx.image_dtype), None, None
