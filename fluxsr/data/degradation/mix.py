"""Mixes several degradations, each for a share of the images."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from fluxsr.data.degradation.base import Degradation, checked_images

_OTHER_BITS = 0x6D69785F


class DegradationMix(Degradation):
    """One of several degradations for each image, drawn from its seed; a model sees mild and heavy damage in one batch.

    A model that has seen only Real-ESRGAN's damage cleans photos that hardly need it. Graded damage is known from DASR
    (Liang et al. 2022, arXiv 2203.14672, three grades in shares of 0.3, 0.3, 0.4).

    It is called like `RealESRGANDegradation`, with the same shapes, ranges and errors. An image comes out exactly as the
    degradation that was drawn makes it with the same seed.

    Args:
        degradations: Degradations to choose from, at least one, all of one scale.
        shares: Share of each in the draws, in any unit; the sum need not be 1.

    Raises:
        ValueError: If there is not one positive share for each degradation, or scales differ.
    """

    def __init__(self, degradations: Sequence[Degradation], shares: Sequence[float]) -> None:
        if not degradations or len(degradations) != len(shares) or not all(share > 0 for share in shares):
            raise ValueError(
                f"give one positive share for each degradation: {len(degradations)} degradations, shares {list(shares)}"
            )
        self.degradations = list(degradations)
        own = [one._scale for one in degradations if isinstance(one, Degradation)]
        stated = {scale for scale in own if scale is not None}
        if len(stated) > 1:
            raise ValueError(f"the degradations of one mix must have one scale, got {sorted(stated)}")
        for scale in stated:
            self.follow(scale)
        self.shares = [float(share) for share in shares]

    def follow(self, scale: int) -> None:
        """Take the magnification of the data, all of them."""
        super().follow(scale)
        for one in self.degradations:
            if isinstance(one, Degradation):
                one.follow(scale)

    def drawn(self, seed: int) -> Degradation:
        """Return the degradation that an image with this seed gets."""
        # Another seed than the degradation's own, whose first numbers would else be tied to the choice.
        generator = torch.Generator().manual_seed(seed ^ _OTHER_BITS)
        bounds = list(accumulate(self.shares))
        place = float(torch.rand((), generator=generator, dtype=torch.float64)) * bounds[-1]
        return self.degradations[bisect(bounds[:-1], place)]

    @torch.no_grad()
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade; see the class."""
        images, seeds = checked_images(hr_image, seeds, self._scale or 1)  # degradations of other kinds may have none
        lr_images = [self.drawn(seed)(image, seeds=seed) for image, seed in zip(images, seeds, strict=True)]
        return torch.stack(lr_images) if hr_image.ndim == 4 else lr_images[0]
