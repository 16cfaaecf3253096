"""Degrades a sharp image as a camera, a chat program and a web page would, in two stages (Real-ESRGAN)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fluxsr.data.degradation.base import Degradation, one_by_one, rounded
from fluxsr.data.degradation.jpeg import jpeg_compress
from fluxsr.data.degradation.kernels import sinc_kernel
from fluxsr.data.degradation.ranges import (
    Dice,
    Range,
    Recipe,
    SecondStageRanges,
    Stage,
    StageRanges,
    check_kernel_sizes,
    check_probability,
    check_range,
    draw_kernel_size,
    draw_mode,
)
from fluxsr.data.degradation.steps import add_gaussian_noise, add_poisson_noise, blur, resize

FIRST, SECOND = StageRanges(), SecondStageRanges()


class RealESRGANDegradation(Degradation):
    """The second-order degradation of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3).

    Two rounds of blur, resize, noise and JPEG, and a sinc filter at the end. Defaults are those published for x4plus.
    Four things depart from the published code. JPEG is exact baseline JPEG with an integer quality. The kernel isn't
    padded to 21x21. Sizes are rounded before resizing. Poisson noise is drawn by inverse transform (the same law).
    Note that the paper's crops are 256 px: the same blur on a 64 px crop covers more of it.

    Calling it gives, for `hr_image` `(3, H, W)` or `(B, 3, H, W)` in [0, 1], the LR image `(..., H / scale, W /
    scale)`, float32 on the same device, in whole multiples of 1/255. `seeds` is one int per image; image b of a batch
    comes out as it would alone with seed b. Equal seeds give equal images. On a CPU it takes one
    thread: give a data loader workers.

    Args:
        scale: Magnification that the model is to learn; H and W must be multiples of it. None: the data's, or 4.
        first: Ranges of the first round.
        second: Ranges of the second round.
        second_blur_prob: Probability of any blur in the second round.
        final_sinc_prob: Probability of the last sinc filter.
        final_kernel_sizes: Smallest and largest size of that filter, odd, in pixels.
        sinc_cutoff: Cutoff of sinc kernels, radians per pixel; also of the last one at any size.
        sinc_cutoff_large: Cutoff of blurring sinc kernels of 13 pixels and more.
        jpeg_last_prob: Probability of resizing and filtering before the second JPEG, not after it.

    Raises:
        ValueError: For a range or probability that makes no sense, naming it; on a call, for images of a wrong shape,
            range or size, or a wrong number of seeds.
    """

    def __init__(
        self,
        scale: int | None = None,
        *,
        first: StageRanges = FIRST,
        second: SecondStageRanges = SECOND,
        second_blur_prob: float = 0.8,
        final_sinc_prob: float = 0.8,
        final_kernel_sizes: tuple[int, int] = (7, 21),
        sinc_cutoff: tuple[float, float] = (math.pi / 3, math.pi),
        sinc_cutoff_large: tuple[float, float] = (math.pi / 5, math.pi),
        jpeg_last_prob: float = 0.5,
    ) -> None:
        if not isinstance(second, SecondStageRanges):  # whose defaults are others
            raise ValueError(f"second must be SecondStageRanges, got {type(second).__name__}")
        check_kernel_sizes("final_kernel_sizes", final_kernel_sizes)
        check_range("sinc_cutoff", sinc_cutoff, above=0.0, most=math.pi)
        check_range("sinc_cutoff_large", sinc_cutoff_large, above=0.0, most=math.pi)
        check_probability("second_blur_prob", second_blur_prob)
        check_probability("final_sinc_prob", final_sinc_prob)
        check_probability("jpeg_last_prob", jpeg_last_prob)
        self.scale = scale
        self.first = first
        self.second = second
        self.second_blur_prob = second_blur_prob
        self.final_sinc_prob = final_sinc_prob
        self.final_kernel_sizes: tuple[int, int] = final_kernel_sizes
        self.sinc_cutoff: Range = sinc_cutoff
        self.sinc_cutoff_large: Range = sinc_cutoff_large
        self.jpeg_last_prob = jpeg_last_prob

    def draw(self, generator: torch.Generator) -> Recipe:
        """Draw all that is random about one image but its noise fields; it depends on nothing of the image."""
        dice = Dice(generator)
        cutoffs = {"cutoff": self.sinc_cutoff, "cutoff_large": self.sinc_cutoff_large}
        first = self.first.draw(dice, blur=True, **cutoffs)
        second = self.second.draw(dice, blur=dice.chance(self.second_blur_prob), **cutoffs)
        final_kernel = None
        if dice.chance(self.final_sinc_prob):
            size = draw_kernel_size(dice, self.final_kernel_sizes)
            final_kernel = sinc_kernel(size, dice.uniform(self.sinc_cutoff))
        return Recipe(first, second, final_kernel, draw_mode(dice), dice.chance(self.jpeg_last_prob))

    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade; see the class."""
        # Every image has its own intermediate sizes.
        return one_by_one(self._degrade, hr_image, seeds, self.scale)

    def _degrade(self, image: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        recipe = self.draw(generator)
        height, width = image.shape[-2:]
        lr_size = (height // self.scale, width // self.scale)

        image = _damaged(image, recipe.first, (height, width), generator)
        image = jpeg_compress(image[None], recipe.first.jpeg_quality)[0]
        image = _damaged(image, recipe.second, lr_size, generator)
        if not recipe.jpeg_last:
            image = jpeg_compress(image[None], recipe.second.jpeg_quality)[0]
        image = resize(image, lr_size, recipe.final_mode)
        if recipe.final_kernel is not None:
            image = blur(image, recipe.final_kernel)
        if recipe.jpeg_last:
            image = jpeg_compress(image[None].clamp(0.0, 1.0), recipe.second.jpeg_quality)[0]
        return rounded(image)


def _damaged(image: Tensor, stage: Stage, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return an image after the blur, the resizing (relative to a size) and the noise of one round."""
    image = blur(image, stage.kernel) if stage.kernel is not None else image
    height, width = (max(1, int(side * stage.factor)) for side in size)
    image = resize(image, (height, width), stage.mode)
    add = add_gaussian_noise if stage.gaussian else add_poisson_noise
    return add(image, stage.strength, stage.gray, generator)


def degradation_for(scale: int, degradation: Degradation | None) -> Degradation:
    """Return the degradation of data of one scale, by default Real-ESRGAN's; a ValueError if it is of another scale."""
    if degradation is None:
        return RealESRGANDegradation(scale)
    if isinstance(degradation, Degradation):  # in Python, any callable is one
        degradation.follow(scale)
    return degradation


def mild_degradation(scale: int | None = None) -> RealESRGANDegradation:
    """Return Real-ESRGAN's degradation with small ranges: a little blur, little noise and JPEG of quality 80 and more.

    A model that saw only heavy damage cleans photos that hardly need it. The ranges are our defaults.

    Args:
        scale: Magnification that the model is to learn. None: the data's, or 4.
    """
    return RealESRGANDegradation(
        scale,
        first=StageRanges(
            blur_sigma=(0.2, 2.0),
            resize_prob=(0.1, 0.3, 0.6),
            resize_range=(0.5, 1.2),
            noise_range=(0.1, 6.0),
            poisson_scale_range=(0.01, 0.4),
            jpeg_range=(80, 100),
        ),
        second=SecondStageRanges(
            resize_prob=(0.1, 0.3, 0.6),
            resize_range=(0.6, 1.2),
            noise_range=(0.1, 4.0),
            poisson_scale_range=(0.01, 0.3),
            jpeg_range=(80, 100),
        ),
        second_blur_prob=0.3,
        final_sinc_prob=0.3,
    )
