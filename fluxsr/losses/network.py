"""Builds image losses from a frozen network: the base of LPIPS, TV-LPIPS and DISTS, and of losses on one image alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.losses._checks import FirstBatch, at_least_float32, check_images, in_transform
from fluxsr.losses._reduction import Reduction, check_mask, check_reduction, per_image, reduced
from fluxsr.losses.frozen import FrozenNetwork


class WeightedView(NamedTuple):
    """One term of a loss: ``weight * net(view(sr_image), view(hr_image))``."""

    weight: float
    view: Callable[[Tensor], Tensor]


class NetworkLoss(nn.Module):
    """Base of the losses ``(sr_image, hr_image) -> scalar`` that are a sum of one network's distances.

    The gradient goes into ``sr_image`` only. It is computed term by term in the forward pass, so that the activations
    of two terms never coexist and none of them waits for ``backward()``. Therefore it can't be differentiated again
    unless ``double_backward`` is set, which costs the memory of an ordinary graph.

    Args:
        net: The network, called ``net(x, y)``.
        views: The terms.
        double_backward: See above.
        compute_dtype: ``"bfloat16"`` (or ``"float16"``) for the convolutions alone: features are compared, and the gradient is
            returned, in float32; ``None`` for float32 all through.
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.

    Raises:
        ValueError: If ``compute_dtype`` or ``reduction`` is none of these.
    """

    def __init__(
        self,
        net: nn.Module,
        views: tuple[WeightedView, ...],
        *,
        double_backward: bool = False,
        compute_dtype: str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if compute_dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"compute_dtype must be bfloat16, float16 or None, got {compute_dtype!r}")
        narrow = compute_dtype not in (None, "float32")
        self.network = FrozenNetwork(net, getattr(torch, str(compute_dtype)) if narrow else None)
        self.views = views
        self.double_backward = double_backward
        self.reduction = reduction
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the reduced loss, in float32; in float64 for float64 images.

        Args:
            sr_image: ``(B, 3, H, W)`` in [0, 1]. Values outside of it are taken as they are; only the first call looks for
                those of 8 bit and of [-1, 1], since looking makes a GPU wait.
            hr_image: Image of the same shape; no gradient goes into it.
            mask: Weights of the pixels, boolean or not negative, ``(B or 1, 1, H, W)``, for networks that compare maps:
                each map of distances is averaged by them. Features next to a border of the mask see across it.

        Raises:
            ValueError: Wrong shapes, channels, dtype or device, values up to 255, a mask for a network that has no maps, or a
                gradient that is wanted in ``hr_image`` alone.
            RuntimeError: In ``backward(create_graph=True)``, without ``double_backward``.
        """
        check_images(sr_image, hr_image, channels=3)
        check_mask(mask, sr_image)
        self._check_first(sr_image, hr_image)
        self._check_first.mask(mask)
        if hr_image.requires_grad and not sr_image.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "only hr_image requires a gradient, and none goes into it: hand over the restored image first, "
                "loss(sr_image, hr_image)"
            )
        hr_image = hr_image.detach()
        # A compiler plans memory itself, and transforms of torch.func want the graph.
        plain = self.double_backward or torch.compiler.is_compiling() or in_transform()
        if plain or not (torch.is_grad_enabled() and sr_image.requires_grad):
            values = sr_image.new_zeros(sr_image.shape[0], dtype=torch.float32)
            for index in range(len(self.views)):
                values = values + self._term(index, sr_image, hr_image, mask)
        else:
            values = _GradientInside.apply(sr_image, hr_image, mask, self)
        return reduced(values, self.reduction)

    def _term(self, index: int, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None) -> Tensor:
        """Return one term's value of each image, ``(B,)``."""
        weight, view = self.views[index]
        dtype = self.network.compute_dtype(sr_image)
        own_mask = mask is not None and getattr(self.network.net, "takes_mask", False)
        options = {"mask": mask} if mask is not None and own_mask else {}
        distance = at_least_float32(self.network(view(sr_image.to(dtype)), view(hr_image.to(dtype)), **options))
        return weight * self._per_image(distance, sr_image.shape[0], None if own_mask else mask)

    def _per_image(self, distance: Tensor, batch: int, mask: Tensor | None) -> Tensor:
        if distance.ndim == 0 and self.reduction != "none" and mask is None:
            return distance.expand(batch)  # a network that takes the mean itself
        if distance.ndim == 0 or distance.shape[0] != batch:
            raise ValueError(
                f"the network returned shape {tuple(distance.shape)} for a batch of {batch}: it must be "
                "called as lpips.LPIPS is, net(x, y) -> (B, 1, 1, 1)"
            )
        if mask is not None and (distance.ndim != 4 or distance.shape[-2:] != mask.shape[-2:]):
            raise ValueError(
                f"{type(self.network.net).__name__} gives one number for an image, and a mask wants a map of distances: leave "
                "the mask out, or take a loss that has maps (LPIPSLoss, TVLPIPSLoss, the pixel losses)"
            )
        return per_image(distance, mask)


class _GradientInside(torch.autograd.Function):
    """The sum of a loss's terms for each image, storing nothing but its gradient in the images."""

    @staticmethod
    def forward(ctx: Any, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None, loss: NetworkLoss) -> Tensor:
        leaf = sr_image.detach().to(loss.network.compute_dtype(sr_image)).requires_grad_()
        values = leaf.new_zeros(leaf.shape[0], dtype=torch.float32)
        total: Tensor | None = None
        for index in range(len(loss.views)):
            with torch.enable_grad():
                term = loss._term(index, leaf, hr_image, mask)
                # An image's value depends on no other image, so the sum's gradient holds that of each.
                (gradient,) = torch.autograd.grad(term.sum(), leaf)
            total = gradient if total is None else total.add_(gradient)
            values = values + term.detach()
            del term, gradient  # or this term's graph would live on beside the next one's
        ctx.save_for_backward(total)
        ctx.image_dtype = sr_image.dtype
        return values

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss computed its gradient in the forward pass and can't be differentiated twice "
                "(create_graph=True): construct it with double_backward=True"
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0].view(-1, 1, 1, 1)).to(ctx.image_dtype), None, None, None


class NoReferenceLoss(nn.Module, ABC):
    """Base of the losses that judge only the restored image, through a frozen network.

    Args:
        net: The network, called ``net(image)``.
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.
    """

    def __init__(self, net: nn.Module, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.network = FrozenNetwork(net)
        self.reduction = reduction
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor | None = None) -> Tensor:
        """Return the reduced loss of ``(B, 3, H, W)`` images in [0, 1]; ``hr_image`` is not looked at.

        Raises:
            ValueError: Wrong shape, channels or dtype, or values up to 255 in the first images.
        """
        check_images(sr_image, sr_image, channels=3)
        self._check_first(sr_image)
        return reduced(self.measure(sr_image), self.reduction)

    @abstractmethod
    def measure(self, sr_image: Tensor) -> Tensor:
        """Return the loss of each image, ``(B,)``."""
