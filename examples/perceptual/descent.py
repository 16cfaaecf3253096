"""What a perceptual network is blind to: images that descending on it makes, labeled by LPIPS-VGG.

A network that ranks well on distortions can still be fooled by an optimizer, and as a loss that is what it meets. So
some groups of the store are one crop and eight stages of a descent towards it on the network trained so far.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from examples.perceptual.distortions import Array, distort
from fluxsr.losses.functional import total_variation_map
from fluxsr.losses.perceptual_nano import PerceptualNano

# Steps at which a stage is kept; the first is the distorted crop itself.
STAGES = (0, 3, 7, 13, 22, 34, 47, 60)
_STARTS = ("gaussian_blur", "anisotropic_blur", "down_up", "down_up", "average", "jpeg")


def start_of_descent(crop: Array, rng: np.random.Generator) -> Array:
    """A distortion that a super-resolver starts from; sometimes any."""
    if rng.random() < 0.25:
        return distort(crop, rng)
    return distort(crop, rng, kind=str(rng.choice(_STARTS)), strength=float(rng.uniform(0.3, 1.0)))


def descend(net: PerceptualNano, crops: Array, starts: Array, rng: np.random.Generator) -> Array:
    """Stages of Adam on the network plus a little L1, ``(groups, 1 + 8, side, side, 3)`` uint8, the crop first.

    Step size and weight of L1 differ between groups; half of the calls descend on the TV maps too.
    """
    count = len(crops)
    hr_image, image = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (crops, starts))
    step_size, weight_l1 = (
        torch.from_numpy(np.exp(rng.uniform(np.log(low), np.log(high), (count, 1, 1, 1))).astype(np.float32))
        for low, high in ((0.0015, 0.015), (0.02, 1.0))
    )
    with_tv = bool(rng.random() < 0.5)
    with torch.no_grad():
        references = [net.features(view) for view in _views(hr_image, with_tv)]
    mean, square, kept = torch.zeros_like(image), torch.zeros_like(image), [_pixels(hr_image)]
    for step in range(STAGES[-1] + 1):
        if step in STAGES:
            kept.append(_pixels(image))
        image.requires_grad_()
        total = (weight_l1 * (image - hr_image).abs()).mean((1, 2, 3)).sum()
        with torch.autocast("cpu", torch.bfloat16):
            maps = [net.features(view) for view in _views(image, with_tv)]
        for weight, found, wanted in zip((1.0, 0.5), maps, references, strict=False):
            for x, y, head in zip(found, wanted, net.heads, strict=True):
                total = total + weight * ((x.float() - y).square().mean((0, 2, 3)) * head).sum() * count
        (gradient,) = torch.autograd.grad(total, image)
        mean = mean.lerp(gradient, 0.1)
        square = square.lerp(gradient.square(), 0.01)
        correction = (1 - 0.99 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
        image = (image.detach() - step_size * correction * mean / (square.sqrt() + 1e-8)).clamp(0, 1)
    return np.stack(kept, axis=1)


def _views(image: Tensor, with_tv: bool) -> list[Tensor]:
    signed = image * 2 - 1
    return [signed, total_variation_map(image) - 1] if with_tv else [signed]


def _pixels(image: Tensor) -> Array:
    return (image.detach().permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
