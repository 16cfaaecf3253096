"""Freezes a network so that it stays constant inside a loss, as LPIPS, DISTS and CLIP need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


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

    Args:
        net: Called ``net(x, y)`` or ``net(x)``.
        autocast: Dtype that its convolutions compute in; ``None``: that of its weights.

    Raises:
        ValueError: If ``net`` is no module.
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
        return next((p.dtype for p in self.net.parameters() if p.is_floating_point()), torch.float32)

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
        return kwargs.get("destination") if kwargs.get("destination") is not None else {}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Strict loading asks for every key and complains of any other; what is here already is right.
        for name in [name for name in state_dict if name.startswith(prefix)]:
            del state_dict[name]
        present: Mapping[str, Tensor] = self.net.state_dict()
        state_dict.update({f"{prefix}net.{name}": value for name, value in present.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def _freeze(frozen: FrozenNetwork, _: Any = None) -> None:
    frozen.net.eval().requires_grad_(False)
    for parameter in frozen.net.parameters():
        if type(parameter) is nn.Parameter:
            # In place, as torch's own lazy parameters become plain ones: weights that are tied stay tied.
            parameter.__class__ = Constant
    frozen.training = False
