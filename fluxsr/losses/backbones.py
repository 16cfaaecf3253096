"""Builds the ImageNet feature networks under LPIPS and DISTS: VGG16, AlexNet, SqueezeNet 1.1.

Layer positions and parameter names are torchvision's (``features.N.weight``), so its checkpoints load strictly.
torchvision itself isn't needed: its import takes a second, and it fills classifiers that nobody uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fluxsr.losses.weights import BACKBONES, load_weights, without_values

# The positions whose outputs LPIPS compares (Zhang et al. 2018) and their channels.
TAPS = {
    "vgg": (3, 8, 15, 22, 29),
    "alex": (1, 4, 7, 9, 11),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
}
CHANNELS = {
    "vgg": (64, 128, 256, 512, 512),
    "alex": (64, 192, 384, 256, 256),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}
# The smallest side at which every stage still has a pixel.
SMALLEST_SIDE = {"vgg": 16, "alex": 31, "squeeze": 17}


class FeatureTower(nn.Module):
    """Convolutions that hand out the maps at some of their positions.

    Shape: ``(B, 3, H, W) -> list of (B, C_l, H_l, W_l)``, one map per tap.
    """

    def __init__(self, features: nn.Sequential, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.features = features
        self.taps = taps

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the tapped maps, first to last."""
        maps = []
        for position, layer in enumerate(self.features):
            image = layer(image)
            if position in self.taps:
                maps.append(image)
        return maps


class _Fire(nn.Module):
    """SqueezeNet's block: a narrow 1x1 convolution, then 1x1 and 3x3 ones side by side."""

    def __init__(self, channels: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.squeeze(x))
        return torch.relu_(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def build_tower(
    name: str, state: Mapping[str, Tensor], *, pool: Callable[[int], nn.Module] | None = None
) -> FeatureTower:
    """Return a frozen tower in evaluation mode."""
    tower = _empty_tower(name, pool)
    wanted = {key: value for key, value in state.items() if key.startswith("features.")}
    try:
        tower.load_state_dict(wanted, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"these are not the weights of {BACKBONES[name].title}: {error}") from error
    return tower.eval().requires_grad_(False)


def load_tower(
    name: str, path: str | Path | None = None, *, pool: Callable[[int], nn.Module] | None = None
) -> FeatureTower:
    """:func:`build_tower` with weights found by :func:`fluxsr.losses.weights.load_weights`; on the meta device, without."""
    if without_values():
        return _empty_tower(name, pool).eval().requires_grad_(False)
    return build_tower(name, load_weights(BACKBONES[name], path), pool=pool)


def _empty_tower(name: str, pool: Callable[[int], nn.Module] | None) -> FeatureTower:
    # On the meta device: no initialization, so neither time nor the global random state is spent.
    with torch.device("meta"):
        features = {"vgg": _vgg16, "alex": _alexnet, "squeeze": _squeezenet}[name]()
    if pool is not None:
        for position, channels in zip((4, 9, 16, 23), CHANNELS["vgg"], strict=False):
            features[position] = pool(channels)
    return FeatureTower(features, TAPS[name])


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def _squeezenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(64, 16, 64),
        _Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(128, 32, 128),
        _Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        _Fire(256, 48, 192),
        _Fire(384, 48, 192),
        _Fire(384, 64, 256),
        _Fire(512, 64, 256),
    )
