"""Implements ``net="nano"``, a small perceptual network that this project trained to rank distortions as LPIPS-VGG does.

It ships with the package, so TV-LPIPS works with no download. It is not VGG: nothing falls back to it, it has to be
asked for by name. ``fluxsr/assets/perceptual_nano.md`` says on what it was trained and how far it agrees with VGG.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.losses._reduction import layer_weights, over_positions
from fluxsr.losses.weights import built_exactly, without_values

WEIGHTS_FILE = Path(__file__).resolve().parents[1] / "assets" / "perceptual_nano.safetensors"
SMALLEST_SIDE = 16
WIDTHS = (24, 40, 64, 96, 112)
# Added to the squared norm of a pixel's features: below it a pixel counts as flat instead of as a random direction.
_FLAT = 1e-2


class PerceptualNano(nn.Module):
    """``net(x, y) -> distance``, called as ``lpips.LPIPS`` is.

    Per stage: features scaled to unit length per pixel, squared differences weighted by a non-negative weight per
    channel, spatial mean; the stages are summed. So the distance is symmetric, and exactly 0 for equal images.

    Shape: two ``(B, 3, H, W)`` images in [-1, 1], sides of at least 16 pixels, to ``(B, 1, 1, 1)``. The scale is that
    of LPIPS-VGG: about 0.1 for mild and 0.6 for severe distortions.
    """

    takes_mask = True

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        stages: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, widths[0], 5, padding=2), nn.SiLU())]
        for index, (narrow, wide) in enumerate(pairwise(widths)):
            # 4x4 at stride 2 meets every pixel equally often; 3x3 would print a 2-pixel grid into the gradient.
            layers = [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.SiLU()]
            if 0 < index < len(widths) - 2:
                layers += [nn.Conv2d(wide, wide, 3, padding=1), nn.SiLU()]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ParameterList(nn.Parameter(torch.full((width,), 0.1)) for width in widths)

    def features(self, image: Tensor) -> list[Tensor]:
        """Unit-length features of a ``(B, 3, H, W)`` image in [-1, 1], one ``(B, C, h, w)`` map per stage."""
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image * torch.rsqrt(image.square().sum(dim=1, keepdim=True) + _FLAT))
        return maps

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance of each pair, ``(B, 1, 1, 1)``, with the weights of the pixels as LPIPS takes them."""
        if min(x.shape[-2:]) < SMALLEST_SIDE:
            raise ValueError(f"net='nano' needs sides of at least {SMALLEST_SIDE} pixels, got shape {tuple(x.shape)}")
        distances = []
        for x_map, y_map, head in zip(self.features(x), self.features(y), self.heads, strict=True):
            differences = F.conv2d((x_map - y_map).square(), head.view(1, -1, 1, 1))
            distances.append(over_positions(differences, None if mask is None else layer_weights(mask, x_map)))
        return torch.stack(distances).sum(dim=0).view(-1, 1, 1, 1)


def load_perceptual_nano(weights: str | Path | None = None) -> PerceptualNano:
    """Return the shipped network, or another of the same family from a safetensors file; frozen, in evaluation mode."""
    from safetensors import SafetensorError, safe_open

    path = WEIGHTS_FILE if weights is None else Path(weights).expanduser()
    if without_values() and weights is None:
        return built_exactly(PerceptualNano).eval().requires_grad_(False)
    if not path.is_file():
        raise FileNotFoundError(f"no weights of the nano perceptual network at {path}")

    def build() -> PerceptualNano:
        with safe_open(path, framework="pt", device="cpu") as file:
            with torch.device("meta"):  # no initialization that would be overwritten
                net = PerceptualNano(tuple(json.loads((file.metadata() or {}).get("widths", json.dumps(WIDTHS)))))
            if not without_values():
                state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
                net.load_state_dict(state, assign=True)
        return net

    try:
        net = built_exactly(build)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not a file of nano perceptual weights: {error}") from error
    return net.eval().requires_grad_(False)
