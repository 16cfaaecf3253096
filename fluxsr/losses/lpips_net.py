"""Implements LPIPS (Zhang et al. 2018) as a frozen network: same numbers as ``lpips.LPIPS``, about half its memory.

Only the learned linear heads are read from the ``lpips`` package; the package itself is never imported (it prints,
fetches full ImageNet classifiers and imports torchvision).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fluxsr.losses._checks import in_transform
from fluxsr.losses._reduction import layer_weights, over_positions
from fluxsr.losses.backbones import CHANNELS, SMALLEST_SIDE, FeatureTower, load_tower
from fluxsr.losses.weights import built_exactly, read_state_dict, without_values

# lpips.LPIPS adds this to the norm, not to its square.
_EPSILON = 1e-10


class LPIPSNet(nn.Module):
    """``net(x, y) -> distance``, called as ``lpips.LPIPS`` is.

    Shape: two ``(B, 3, H, W)`` images in [-1, 1] to ``(B, 1, 1, 1)``. The distance is 0 for equal images and grows
    without a fixed upper bound (about 1 for unrelated photos).
    """

    takes_mask = True
    shift: Tensor
    scale: Tensor

    def __init__(
        self, tower: FeatureTower, heads: list[Tensor], *, name: str = "vgg", double_backward: bool = False
    ) -> None:
        super().__init__()
        self.tower = tower
        self.name = name
        self.double_backward = double_backward
        for index, head in enumerate(heads):
            self.register_buffer(f"head{index}", head.clone())
        # ImageNet's mean and standard deviation, for images in [-1, 1] (the paper's own rounding).
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    @classmethod
    def load(cls, name: str = "vgg", weights: str | Path | None = None, *, double_backward: bool = False) -> LPIPSNet:
        """Return LPIPS v0.1 with the backbone's weights, found by :func:`fluxsr.losses.weights.load_weights`."""
        return built_exactly(
            lambda: cls(load_tower(name, weights), load_heads(name), name=name, double_backward=double_backward)
        ).eval()

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance of each pair, ``(B, 1, 1, 1)``.

        A mask ``(B or 1, 1, H, W)`` holds weights of the pixels, by which each layer's map of distances is averaged.
        """
        smallest = SMALLEST_SIDE[self.name]
        if min(x.shape[-2:]) < smallest:
            raise ValueError(f"LPIPS ({self.name}) needs sides of at least {smallest} pixels, got {tuple(x.shape)}")
        # y first: where it carries no gradient nothing but its tapped maps is alive while x runs.
        y_maps = self.tower((y - self.shift) / self.scale)
        x_maps = self.tower((x - self.shift) / self.scale)
        distances = []
        for index, x_map in enumerate(x_maps):
            head: Tensor = getattr(self, f"head{index}")
            y_map, y_maps[index] = y_maps[index].to(head.dtype), y_maps[index].new_empty(0)
            x_map = x_map.to(head.dtype)  # where the convolutions ran in fewer bits
            weights = None if mask is None else layer_weights(mask, x_map)
            distances.append(head_distance(x_map, y_map, head, weights, double_backward=self.double_backward))
            del y_map
        return torch.stack(distances).sum(dim=0).view(-1, 1, 1, 1)


def load_heads(name: str) -> list[Tensor]:
    """Return the learned channel weights of LPIPS v0.1, from the files of the ``lpips`` package."""
    if without_values():
        return [torch.empty(channels) for channels in CHANNELS[name]]
    spec = find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the linear heads of LPIPS come with the package lpips: pip install lpips")
    state = read_state_dict(Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{name}.pth")
    return [state[f"lin{index}.model.1.weight"].flatten() for index in range(len(CHANNELS[name]))]


def head_distance(
    x: Tensor, y: Tensor, head: Tensor, weights: Tensor | None = None, *, double_backward: bool = False
) -> Tensor:
    """Spatial mean of ``sum_c head_c (x_c / |x| - y_c / |y|)^2``, the summand of LPIPS (Zhang et al. 2018, eq. 1).

    Shape: two ``(B, C, H, W)`` maps and ``(C,)`` weights to ``(B,)``; with ``weights`` ``(B, 1, H, W)``, which sum to 1 for
    each image, instead of the plain mean.
    """
    # A compiler fuses the plain form better than it could an opaque function, and torch.func wants no custom one.
    if double_backward or y.requires_grad or torch.compiler.is_compiling() or in_transform():
        distances = ((_unit(x) - _unit(y)).square() * head.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        return over_positions(distances, weights)
    distance: Tensor = _HeadDistance.apply(x, y, head, weights)
    return distance


def _unit(features: Tensor) -> Tensor:
    norm = features.square().sum(dim=1, keepdim=True)
    # The square root has no finite slope at 0, and a ReLU map can be all zero at a pixel.
    return features / (torch.where(norm > 0, norm, 1.0).sqrt() + _EPSILON)


class _HeadDistance(torch.autograd.Function):
    """:func:`head_distance` with its gradient in ``x`` computed in the forward pass, the only thing it stores."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, head: Tensor, weights: Tensor | None) -> Tensor:
        share: float | Tensor = 1 / (x.shape[-2] * x.shape[-1]) if weights is None else weights
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        unit = x / (norm + _EPSILON)
        difference = y / (torch.linalg.vector_norm(y, dim=1, keepdim=True) + _EPSILON)
        torch.sub(unit, difference, out=difference)
        weighted = difference * head.view(1, -1, 1, 1)
        products = weighted * difference
        if weights is None:
            distance = products.flatten(1).sum(dim=1) * share
        else:
            distance = (products.sum(dim=1, keepdim=True) * weights).flatten(1).sum(dim=1)
        del products
        if ctx.needs_input_grad[0]:
            # d/dx of x / (|x| + e) applied to 2 * weighted * share; x / |x| stands for unit: they differ by 1e-10.
            along = torch.mul(weighted, unit, out=difference).sum(dim=1, keepdim=True)
            gradient = weighted.sub_(unit.mul_(along)).mul_(2.0 * share).div_(norm + _EPSILON)
            # Where x is all zero its direction is undefined; a huge slope there would be an artefact.
            ctx.save_for_backward(gradient.masked_fill_(norm == 0, 0.0))
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0].view(-1, 1, 1, 1), None, None, None
