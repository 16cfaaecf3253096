"""Implements an adversary on decoded images: light heads on the features of a frozen network that was trained on photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.losses.backbones import TAPS, load_tower
from fluxsr.losses.network import FrozenNetwork
from fluxsr.models.discriminator import FeatureDiscriminator
from fluxsr.training.adversary import Adversary
from fluxsr.training.terms import StepOutputs

# ImageNet's channel means and deviations, which the towers were trained with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageAdversary(Adversary):
    """Adds an adversarial term on decoded images: hinge, photos against the student's restorations of their LR images.

    The discriminator sees random crops of the decoded estimate and of the photos, through a frozen network. Only its heads are
    trained, in turn with the student as in :class:`Adversary`. The gradient reaches the student through the decoder.
    Heads on frozen features come from Projected GAN (arXiv 2111.01007). One-step models on FLUX use them on DINO or ConvNeXt
    features, with unpublished weights; the weights here are our defaults.

    Args:
        net: Name or network. The weights of ``vgg``, ``alex`` and ``squeeze`` are found as those of LPIPS are. A network of
            your own (DINO, ConvNeXt) is called with images ``(B, 3, crop, crop)`` in ``[0, 1]``, and returns a map
            ``(B, C, h, w)``, tokens ``(B, N, D)``, or a list of these.
        crop: Side in pixels of the crops; an image term with the same crop shares the decoding.
        weight: See :class:`Adversary`; so are all that follow.
        layers: Numbers of the network's maps that are used; all by default.
        width: Hidden units of each head.
        r1_weight: Weight of the R1 penalty.
        warmup_steps: Steps in which only the discriminator learns.
        adaptive: Balance the term's gradient against all others'.
        optimizer: Makes the heads' optimizer.
        gradient_clip_val: Largest gradient norm of either side.
        accumulate_grad_batches: Batches per step.

    Raises:
        ValueError: If a number is out of range, the network is unknown, or returns something else.
    """

    def __init__(
        self,
        net: str | nn.Module = "vgg",
        crop: int = 128,
        weight: float = 0.1,
        layers: list[int] | None = None,
        width: int = 64,
        r1_weight: float = 0.0,
        warmup_steps: int = 0,
        adaptive: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        gradient_clip_val: float | None = 1.0,
        accumulate_grad_batches: int = 1,
    ) -> None:
        super().__init__(
            weight, layers, width, 0.0, r1_weight, warmup_steps, adaptive, optimizer, gradient_clip_val,
            accumulate_grad_batches,
        )  # fmt: skip
        if crop < 16:
            raise ValueError(f"crop must be at least 16 pixels, got {crop}")
        self.crop = crop
        self.network = FrozenNetwork(_named(net) if isinstance(net, str) else net)

    def judge_with(self, backbone: nn.Module) -> None:
        """Make the heads for what the network returns; the backbone is not looked at."""
        place = next(self.network.parameters(), torch.empty(0))
        with torch.no_grad():
            features = self.features(torch.zeros(1, 3, self.crop, self.crop, device=place.device))
        self.discriminator = FeatureDiscriminator([one.shape[-1] for one in features], self.width)

    def features(self, samples: Tensor) -> list[Tensor]:
        """Return what the network makes of images ``(B, 3, H, W)``: ``(B, N, D)`` each, with gradient to them."""
        made: Any = self.network(samples)
        maps = [made] if isinstance(made, Tensor) else made
        if not isinstance(maps, Sequence) or not all(isinstance(one, Tensor) and one.ndim in (3, 4) for one in maps):
            kind, got = type(self.network.net).__name__, type(made).__name__
            raise ValueError(f"{kind} returned a {got}: give maps (B, C, h, w), tokens (B, N, D), or a list of these")
        maps = maps if self.layers is None else [maps[layer] for layer in self.layers]
        return [(one.flatten(2).mT if one.ndim == 4 else one).float() for one in maps]

    def fakes(self, outputs: StepOutputs) -> Tensor:
        """Return crops of the decoded estimate, ``(B, 3, crop, crop)``."""
        return outputs.images(self.crop)[0]

    def reals(self, outputs: StepOutputs) -> Tensor:
        """Return the same crops of the photos."""
        return outputs.images(self.crop)[1]


class _Normalized(nn.Module):
    """A tower on images in [0, 1]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.tower((image - self.mean) / self.deviation)


def _named(name: str) -> nn.Module:
    if name not in TAPS:
        raise ValueError(f"net must be one of {', '.join(TAPS)}, or a module of yours, got {name!r}")
    return _Normalized(load_tower(name))
