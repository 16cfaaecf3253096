"""From a sharp image to the low-resolution one that a camera, a chat program and a web page would have made of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.data.distortions import add_gaussian_noise, add_poisson_noise, blur, resize
from fluxsr.data.jpeg import jpeg_compress
from fluxsr.data.kernels import sinc_kernel
from fluxsr.data.recipe import (
    Dice,
    Noise,
    Range,
    Recipe,
    StageRanges,
    check_kernel_sizes,
    check_probability,
    check_range,
    draw_kernel_size,
    draw_mode,
)


class Degradation(ABC):
    """Makes LR images from HR ones; the base of what a YAML's `degradation` may name.

    In Python any callable with this signature serves as well.
    """

    @abstractmethod
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade `(3, H, W)` or `(B, 3, H, W)` in [0, 1] to 1/scale of its size; one seed per image."""


class RealESRGANDegradation(Degradation):
    """The second-order degradation of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3).

    Two rounds of blur, resize, noise and JPEG, and a sinc filter at the end. Defaults are those published for x4plus;
    the arguments that end in 2 belong to the second round. What departs from the published code: JPEG is exact baseline
    JPEG with an integer quality, the kernel isn't padded to 21x21, sizes are rounded before resizing, and Poisson noise
    is drawn by inverse transform (the same law). Note that the paper's crops are 256 px: the same blur on a 64 px crop
    covers more of it.

    Calling it gives, for `hr_image` `(3, H, W)` or `(B, 3, H, W)` in [0, 1], the LR image `(..., H / scale, W /
    scale)`, float32 on the same device, in whole multiples of 1/255. `seeds` is one int per image; image b of a batch
    comes out as it would alone with seed b. Equal seeds give equal images. On a CPU it takes one
    thread: give a data loader workers.

    Args:
        scale: magnification that the model is to learn; H and W must be multiples of it.
        kernel_sizes: smallest and largest blur kernel, odd, in pixels.
        kernel_probs: of the kernels iso, aniso, generalised_iso, generalised_aniso, plateau_iso, plateau_aniso.
        sinc_prob: of a sinc kernel in their stead.
        blur_sigma: standard deviation of the kernels, in pixels.
        betag: shape of generalised Gaussians; half of the draws are below 1 and half above.
        betap: shape of plateaus, likewise.
        resize_prob: of up, down, keep.
        resize_range: factor when going down from the first number to 1, when going up from 1 to the second.
        gaussian_noise_prob: of Gaussian noise; else Poisson.
        noise_range: standard deviation of Gaussian noise, in 1/255.
        poisson_scale_range: multiple of the natural Poisson noise.
        gray_noise_prob: of noise that is the same in all channels.
        jpeg_range: JPEG quality, 1 to 100.
        second_blur_prob: of any blur in the second round.
        kernel_sizes2: as `kernel_sizes`, and so on, for the second round.
        kernel_probs2: see above.
        sinc_prob2: see above.
        blur_sigma2: see above.
        betag2: see above.
        betap2: see above.
        resize_prob2: see above.
        resize_range2: see above; here relative to the LR image's size.
        gaussian_noise_prob2: see above.
        noise_range2: see above.
        poisson_scale_range2: see above.
        gray_noise_prob2: see above.
        jpeg_range2: see above.
        final_sinc_prob: of the last sinc filter.
        final_kernel_sizes: its smallest and largest size, odd, in pixels.
        sinc_cutoff: cutoff of sinc kernels, radians per pixel; also of the last one at any size.
        sinc_cutoff_large: cutoff of blurring sinc kernels of 13 pixels and more.
        jpeg_last_prob: of resizing and filtering before the second JPEG, not after it.

    Raises:
        ValueError: for a range or probability that makes no sense, naming it; on a call, for images of a wrong shape,
            range or size, or a wrong number of seeds.
    """

    def __init__(
        self,
        scale: int = 4,
        kernel_sizes: tuple[int, int] = (7, 21),
        kernel_probs: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
        sinc_prob: float = 0.1,
        blur_sigma: tuple[float, float] = (0.2, 3.0),
        betag: tuple[float, float] = (0.5, 4.0),
        betap: tuple[float, float] = (1.0, 2.0),
        resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1),
        resize_range: tuple[float, float] = (0.15, 1.5),
        gaussian_noise_prob: float = 0.5,
        noise_range: tuple[float, float] = (1.0, 30.0),
        poisson_scale_range: tuple[float, float] = (0.05, 3.0),
        gray_noise_prob: float = 0.4,
        jpeg_range: tuple[int, int] = (30, 95),
        second_blur_prob: float = 0.8,
        kernel_sizes2: tuple[int, int] = (7, 21),
        kernel_probs2: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
        sinc_prob2: float = 0.1,
        blur_sigma2: tuple[float, float] = (0.2, 1.5),
        betag2: tuple[float, float] = (0.5, 4.0),
        betap2: tuple[float, float] = (1.0, 2.0),
        resize_prob2: tuple[float, float, float] = (0.3, 0.4, 0.3),
        resize_range2: tuple[float, float] = (0.3, 1.2),
        gaussian_noise_prob2: float = 0.5,
        noise_range2: tuple[float, float] = (1.0, 25.0),
        poisson_scale_range2: tuple[float, float] = (0.05, 2.5),
        gray_noise_prob2: float = 0.4,
        jpeg_range2: tuple[int, int] = (30, 95),
        final_sinc_prob: float = 0.8,
        final_kernel_sizes: tuple[int, int] = (7, 21),
        sinc_cutoff: tuple[float, float] = (math.pi / 3, math.pi),
        sinc_cutoff_large: tuple[float, float] = (math.pi / 5, math.pi),
        jpeg_last_prob: float = 0.5,
    ) -> None:
        check_scale(scale)
        check_kernel_sizes("final_kernel_sizes", final_kernel_sizes)
        check_range("sinc_cutoff", sinc_cutoff, above=0.0, most=math.pi)
        check_range("sinc_cutoff_large", sinc_cutoff_large, above=0.0, most=math.pi)
        check_probability("second_blur_prob", second_blur_prob)
        check_probability("final_sinc_prob", final_sinc_prob)
        check_probability("jpeg_last_prob", jpeg_last_prob)
        self.scale = scale
        self.first = StageRanges(
            "", kernel_sizes, kernel_probs, sinc_prob, blur_sigma, betag, betap, resize_prob, resize_range,
            gaussian_noise_prob, noise_range, poisson_scale_range, gray_noise_prob, jpeg_range,
        )  # fmt: skip
        self.second = StageRanges(
            "2", kernel_sizes2, kernel_probs2, sinc_prob2, blur_sigma2, betag2, betap2, resize_prob2, resize_range2,
            gaussian_noise_prob2, noise_range2, poisson_scale_range2, gray_noise_prob2, jpeg_range2,
        )  # fmt: skip
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

    @torch.no_grad()
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int]) -> Tensor:
        """Degrade; see the class."""
        images, seeds = checked_images(hr_image, seeds, self.scale)
        # One by one: every image has its own intermediate sizes, and must not depend on its neighbours even in
        # rounding.
        with _one_thread():
            lr_images = [self._degrade(image, seed) for image, seed in zip(images, seeds, strict=True)]
        return torch.stack(lr_images) if hr_image.ndim == 4 else lr_images[0]

    def _degrade(self, image: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        recipe = self.draw(generator)
        height, width = image.shape[-2:]
        lr_size = (height // self.scale, width // self.scale)

        first, second = recipe.first, recipe.second
        image = blur(image, first.kernel) if first.kernel is not None else image
        image = resize(image, _scaled(height, width, first.resize.factor), first.resize.mode)
        image = _add_noise(image, first.noise, generator)
        image = jpeg_compress(image[None], first.jpeg_quality)[0]

        image = blur(image, second.kernel) if second.kernel is not None else image
        image = resize(image, _scaled(*lr_size, second.resize.factor), second.resize.mode)
        image = _add_noise(image, second.noise, generator)
        if not recipe.jpeg_last:
            image = jpeg_compress(image[None], second.jpeg_quality)[0]
        image = resize(image, lr_size, recipe.final_mode)
        if recipe.final_kernel is not None:
            image = blur(image, recipe.final_kernel)
        if recipe.jpeg_last:
            image = jpeg_compress(image[None].clamp(0.0, 1.0), second.jpeg_quality)[0]
        return _rounded(image)


class BicubicDegradation(Degradation):
    """Antialiased bicubic downsampling, the degradation of classic super-resolution benchmarks.

    It is called like `RealESRGANDegradation`, with the same shapes, ranges and errors; `seeds` change nothing. Torch's
    antialiased filter (a = -0.5, Pillow's) is used, which differs from MATLAB's in borders and rounding only.

    Args:
        scale: magnification that the model is to learn.
    """

    def __init__(self, scale: int = 4) -> None:
        check_scale(scale)
        self.scale = scale

    @torch.no_grad()
    def __call__(self, hr_image: Tensor, *, seeds: int | Sequence[int] = 0) -> Tensor:
        """Downsample; see the class."""
        many = hr_image.ndim == 4
        images, _ = checked_images(hr_image, [0] * len(hr_image) if many else 0, self.scale)
        size = (images.shape[-2] // self.scale, images.shape[-1] // self.scale)
        lr_image = _rounded(F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False))
        return lr_image if many else lr_image[0]


def check_scale(scale: int) -> None:
    """Raise a ValueError unless `scale` is a whole number from 1 on."""
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be a whole number of at least 1, got {scale!r}")


def checked_images(hr_image: Tensor, seeds: int | Sequence[int], scale: int) -> tuple[Tensor, list[int]]:
    """Return `(B, 3, H, W)` float32 images and their B seeds.

    Raises:
        ValueError: for a wrong shape, dtype, range or size of `hr_image`, or a wrong number of `seeds`.
    """
    if hr_image.ndim not in (3, 4) or hr_image.shape[-3] != 3 or not hr_image.is_floating_point():
        raise ValueError(
            f"hr_image must be float of shape (3, H, W) or (B, 3, H, W), got {tuple(hr_image.shape)} {hr_image.dtype}"
        )
    height, width = hr_image.shape[-2:]
    if hr_image.numel() == 0 or height % scale or width % scale:
        raise ValueError(
            f"hr_image is {height}x{width}: both sides must be positive multiples of scale={scale}; crop it"
        )
    low, high = (float(bound) for bound in hr_image.aminmax())
    if not (low >= -1e-3 and high <= 1.0 + 1e-3):  # False for NaN, too
        raise ValueError(f"hr_image must lie in [0, 1] and be finite, its values span [{low:g}, {high:g}]")
    images = hr_image.float()
    images = images if images.ndim == 4 else images[None]
    seeds = [seeds] if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if len(seeds) != len(images):
        raise ValueError(f"{len(seeds)} seeds were given for {len(images)} images: give one per image")
    return images, seeds


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one CPU thread, as a data worker does anyway.

    Transforms and matrix products may round otherwise on two threads, so a sample would depend on the number of
    workers; and for small crops on a busy machine, threads wait for each other for many times as long as they work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scaled(height: int, width: int, factor: float) -> tuple[int, int]:
    return max(1, int(height * factor)), max(1, int(width * factor))


def _add_noise(image: Tensor, noise: Noise, generator: torch.Generator) -> Tensor:
    add = add_gaussian_noise if noise.gaussian else add_poisson_noise
    return add(image, noise.strength, noise.gray, generator)


def _rounded(image: Tensor) -> Tensor:
    return (image * 255.0).round_().clamp_(0.0, 255.0).div_(255.0)
