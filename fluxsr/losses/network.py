"""Freezes a network inside of a loss: the base of LPIPS, TV-LPIPS and DISTS, and of losses on one image alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fluxsr.losses._checks import FirstBatch, at_least_float32, check_images, in_transform
from fluxsr.losses._reduction import Reduction, check_mask, check_reduction, per_image, reduced


class Constant(nn.Parameter):
    """A parameter that nothing makes trainable: not ``requires_grad_(True)`` of an owner, not Lightning's ``unfreeze()``.

    It stays a parameter, and is no buffer, because data-parallel training sends buffers around before every step.
    """

    def __new__(cls, data: Tensor) -> Constant:
        """Hold the values of ``data``."""
        return super().__new__(cls, data, False)

    @property
    def requires_grad(self) -> bool:
        """False, whatever it is set to."""
        return False

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        pass

    def requires_grad_(self, mode: bool = True) -> Constant:
        """Do nothing."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Constant:
        if id(self) not in memo:
            memo[id(self)] = Constant(self.data.clone(memory_format=torch.preserve_format))
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Constant, (self.data,)


class FrozenNetwork(nn.Module):
    """Holds a network that is a constant: never trained, never saved, never rounded.

    It stays in evaluation mode after ``.train()``, untrainable after ``.requires_grad_(True)``, and keeps its dtype after
    ``.to(torch.bfloat16)``, ``.half()`` or ``.double()`` (moves to a device work). Its weights are left out of
    ``state_dict()``, so a checkpoint doesn't carry 59 MB of VGG, and a checkpoint that has them doesn't change them.
    ``autocast`` is the dtype that its convolutions compute in; ``None``: that of its weights.
    """

    def __init__(self, net: nn.Module, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise ValueError(f"a network must be a torch.nn.Module, got {type(net).__name__}: wrap it in one")
        self.net = net
        self.autocast = autocast
        _freeze(self)
        self.register_load_state_dict_post_hook(_freeze)  # loading with assign=True puts new parameters in place

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; float32 for a network without."""
        for parameter in self.net.parameters():  # in a loop, which torch 2.6 can export
            if parameter.is_floating_point():
                return parameter.dtype
        return torch.float32

    def compute_dtype(self, image: Tensor) -> torch.dtype:
        """Return what the network computes in: the dtype of its weights, or float64 for float64 images."""
        return torch.float64 if image.dtype == torch.float64 and self.autocast is None else self.dtype

    def forward(self, *images: Tensor, **options: Tensor) -> Tensor:
        """Call the network in evaluation mode and its own dtype, outside of the surrounding autocast."""
        # Somebody else who holds it, too, may have called its `.train()`.
        if not torch.compiler.is_compiling() and any(module.training for module in self.net.modules()):
            self.net.eval()
        dtype = self.compute_dtype(images[0])
        images = tuple(image.to(dtype) for image in images)
        # The meta device has no autocast of its own; where one is imitated, it is the CPU's.
        kind = "cpu" if images[0].is_meta else images[0].device.type
        with torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None):
            if dtype == self.dtype:
                return self.net(*images, **options)
            values = chain(self.net.named_parameters(), self.net.named_buffers())
            widened = {name: value.to(dtype) for name, value in values if value.is_floating_point()}
            return functional_call(self.net, widened, images, options)

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Do nothing: there is no training mode."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetwork:
        def move(tensor: Tensor) -> Tensor:
            # Asked with an empty tensor: where would this go? A rounded weight couldn't be restored afterwards.
            return tensor.to(fn(tensor.new_empty(0)).device) if tensor.is_floating_point() else fn(tensor)

        super()._apply(move, recurse)
        _freeze(self)  # a move to the meta device makes new parameters
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing: see the class."""
        return {} if kwargs.get("destination") is None else kwargs["destination"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Strict loading asks for every key and complains of any other; what is here already is right.
        for name in [name for name in state_dict if name.startswith(prefix)]:
            del state_dict[name]
        state_dict.update({f"{prefix}net.{name}": value for name, value in self.net.state_dict().items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def _freeze(frozen: FrozenNetwork, _: Any = None) -> None:
    frozen.net.eval().requires_grad_(False)
    for parameter in frozen.net.parameters():
        if type(parameter) is nn.Parameter:
            # In place, as torch's own lazy parameters become plain ones: weights that are tied stay tied.
            parameter.__class__ = Constant
    frozen.training = False


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
            raise ValueError("only hr_image requires a gradient, and none goes into it: hand over sr_image first")
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
                f"the network returned shape {tuple(distance.shape)} for a batch of {batch}: net(x, y) gives (B, 1, 1, 1)"
            )
        if mask is not None and (distance.ndim != 4 or distance.shape[-2:] != mask.shape[-2:]):
            raise ValueError(
                f"{type(self.network.net).__name__} gives no map of distances that a mask could weigh: leave the mask out, or "
                "take LPIPSLoss, TVLPIPSLoss or a pixel loss"
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
                "this loss computed its gradient in the forward pass: to differentiate it twice (create_graph=True), "
                "construct it with double_backward=True"
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0].view(-1, 1, 1, 1)).to(ctx.image_dtype), None, None, None


class NoReferenceLoss(nn.Module, ABC):
    """Base of the losses that judge only the restored image, through a frozen network that is called ``net(image)``."""

    def __init__(self, net: nn.Module, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.network = FrozenNetwork(net)
        self.reduction = reduction
        self._check_first = FirstBatch()

    def forward(self, sr_image: Tensor, hr_image: Tensor | None = None) -> Tensor:
        """Return the reduced loss of ``(B, 3, H, W)`` images in [0, 1]; ``hr_image`` is not looked at."""
        check_images(sr_image, sr_image, channels=3)
        self._check_first(sr_image)
        return reduced(self.measure(sr_image), self.reduction)

    @abstractmethod
    def measure(self, sr_image: Tensor) -> Tensor:
        """Return the loss of each image, ``(B,)``."""
