"""Defines the ranges that a degradation draws from (`StageRanges`), and what it has drawn for one image (`Recipe`)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fluxsr.data.degradation.kernels import gaussian_kernel, generalized_gaussian_kernel, plateau_kernel, sinc_kernel
from fluxsr.data.degradation.steps import RESIZE_MODES

Range = tuple[float, float]

KERNEL_KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_LARGE_KERNEL = 13


class Stage(NamedTuple):
    """One round of blur (None: left out), resize, noise and JPEG.

    The factor is on the side lengths, the mode an entry of `RESIZE_MODES`. Gaussian noise has its `strength` in 1/255, Poisson
    noise is multiplied by it; it is the same in all channels if `gray`.
    """

    kernel: Tensor | None
    factor: float
    mode: str
    gaussian: bool
    strength: float
    gray: bool
    jpeg_quality: int


class Recipe(NamedTuple):
    """All that is drawn for one image, its noise fields aside."""

    first: Stage
    second: Stage
    final_kernel: Tensor | None
    final_mode: str
    jpeg_last: bool


class Dice:
    """Uniform numbers for one recipe, drawn from a generator at once: one call, and always as many."""

    _COUNT = 64

    def __init__(self, generator: torch.Generator) -> None:
        self._numbers = iter(torch.rand(self._COUNT, generator=generator, dtype=torch.float64).tolist())

    def uniform(self, bounds: Range) -> float:
        """Draw from [low, high)."""
        low, high = bounds
        return low + (high - low) * float(next(self._numbers))

    def chance(self, probability: float) -> bool:
        """Draw True with a probability."""
        return float(next(self._numbers)) < probability

    def integer(self, low: int, high: int) -> int:
        """Draw from low..high, both included."""
        return low + math.floor((high - low + 1) * float(next(self._numbers)))

    def choice(self, probabilities: tuple[float, ...]) -> int:
        """Draw a position with the given probabilities, which sum to 1."""
        number = float(next(self._numbers))
        for position, probability in enumerate(probabilities):
            number -= probability
            if number < 0:
                return position
        return max(position for position, probability in enumerate(probabilities) if probability > 0)


@dataclass(frozen=True, kw_only=True)
class StageRanges:
    """The ranges of one round of the degradation; the defaults are those published for the first round.

    Args:
        kernel_sizes: Smallest and largest blur kernel, odd, in pixels.
        kernel_probs: Probabilities of the kernels iso, aniso, generalized_iso, generalized_aniso, plateau_iso and
            plateau_aniso.
        sinc_prob: Probability of a sinc kernel in their stead.
        blur_sigma: Standard deviation of the kernels, in pixels.
        betag: Shape of generalized Gaussians; half of the draws are below 1 and half above.
        betap: Shape of plateaus, likewise.
        resize_prob: Probabilities of up, down and keep.
        resize_range: Smallest and largest factor: down is drawn from the first to 1, up from 1 to the second. It is
            relative to the HR image's size in the first round, to the LR image's in the second.
        gaussian_noise_prob: Probability of Gaussian noise; else it is Poisson noise.
        noise_range: Standard deviation of Gaussian noise, in 1/255.
        poisson_scale_range: Multiple of the natural Poisson noise.
        gray_noise_prob: Probability of noise that is the same in all channels.
        jpeg_range: JPEG quality, 1 to 100.

    Raises:
        ValueError: For a range or probability that makes no sense, naming it.
    """

    kernel_sizes: tuple[int, int] = (7, 21)
    kernel_probs: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: float = 0.1
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    betag: tuple[float, float] = (0.5, 4.0)
    betap: tuple[float, float] = (1.0, 2.0)
    resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_range: tuple[float, float] = (0.15, 1.5)
    gaussian_noise_prob: float = 0.5
    noise_range: tuple[float, float] = (1.0, 30.0)
    poisson_scale_range: tuple[float, float] = (0.05, 3.0)
    gray_noise_prob: float = 0.4
    jpeg_range: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        check_kernel_sizes("kernel_sizes", self.kernel_sizes)
        check_distribution("kernel_probs", self.kernel_probs, KERNEL_KINDS)
        check_distribution("resize_prob", self.resize_prob, ("up", "down", "keep"))
        for name in ("sinc_prob", "gaussian_noise_prob", "gray_noise_prob"):
            check_probability(name, getattr(self, name))
        check_range("blur_sigma", self.blur_sigma, above=0.0)
        for name in ("betag", "betap", "resize_range"):
            check_range(name, getattr(self, name), above=0.0, around=1.0)
        for name in ("noise_range", "poisson_scale_range"):
            check_range(name, getattr(self, name), least=0.0)
        check_range("jpeg_range", self.jpeg_range, least=1, most=100)

    def draw(self, dice: Dice, *, blur: bool, cutoff: Range, cutoff_large: Range) -> Stage:
        """Draw one round; without `blur` its kernel is None."""
        kernel = self._draw_kernel(dice, cutoff, cutoff_large) if blur else None
        low, high = self.resize_range
        factor = dice.uniform(((1.0, high), (low, 1.0), (1.0, 1.0))[dice.choice(self.resize_prob)])
        mode = draw_mode(dice)
        gaussian = dice.chance(self.gaussian_noise_prob)
        strength = dice.uniform(self.noise_range if gaussian else self.poisson_scale_range)
        gray = dice.chance(self.gray_noise_prob)
        return Stage(kernel, factor, mode, gaussian, strength, gray, dice.integer(*self.jpeg_range))

    def _draw_kernel(self, dice: Dice, cutoff: Range, cutoff_large: Range) -> Tensor:
        size = draw_kernel_size(dice, self.kernel_sizes)
        if dice.chance(self.sinc_prob):
            return sinc_kernel(size, dice.uniform(cutoff if size < _LARGE_KERNEL else cutoff_large))
        family, shape = KERNEL_KINDS[dice.choice(self.kernel_probs)].rpartition("_")[::2]
        sigma, rotation = (dice.uniform(self.blur_sigma),) * 2, 0.0
        if shape == "aniso":
            sigma = (sigma[0], dice.uniform(self.blur_sigma))
            rotation = dice.uniform((-math.pi, math.pi))
        if family == "generalized":
            return generalized_gaussian_kernel(size, sigma, rotation, _draw_around_one(dice, self.betag))
        if family == "plateau":
            return plateau_kernel(size, sigma, rotation, _draw_around_one(dice, self.betap))
        return gaussian_kernel(size, sigma, rotation)


@dataclass(frozen=True, kw_only=True)
class SecondStageRanges(StageRanges):
    """As :class:`StageRanges`, with the defaults published for the second round.

    A class of its own, so that a configuration that sets a few ranges leaves the others at the second round's defaults.
    """

    blur_sigma: tuple[float, float] = (0.2, 1.5)
    resize_prob: tuple[float, float, float] = (0.3, 0.4, 0.3)
    resize_range: tuple[float, float] = (0.3, 1.2)
    noise_range: tuple[float, float] = (1.0, 25.0)
    poisson_scale_range: tuple[float, float] = (0.05, 2.5)


def draw_kernel_size(dice: Dice, bounds: tuple[int, int]) -> int:
    """Draw an odd size between two odd ones, both included."""
    low, high = bounds
    return low + 2 * dice.integer(0, (high - low) // 2)


def draw_mode(dice: Dice) -> str:
    """Draw one of `RESIZE_MODES`, all equally likely."""
    return RESIZE_MODES[dice.integer(0, len(RESIZE_MODES) - 1)]


def _draw_around_one(dice: Dice, bounds: Range) -> float:
    # Half of the draws below 1 and half above, as in Real-ESRGAN's code, wherever 1 lies in the range.
    low, high = bounds
    return dice.uniform((low, 1.0) if dice.chance(0.5) else (1.0, high))


def check_range(
    name: str,
    bounds: Range,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    around: float | None = None,
) -> None:
    """Raise a ValueError unless `bounds` is an ordered pair within the limits, and with `around` inside it."""
    if len(bounds) != 2 or not all(math.isfinite(bound) for bound in bounds) or bounds[0] > bounds[1]:
        raise ValueError(f"{name} must be (low, high) with low <= high, got {tuple(bounds)}")
    low, high = bounds
    if low <= above or low < least or high > most:
        limits = [f"above {above:g}"] if above > -math.inf else []
        limits += [f"at least {least:g}"] if least > -math.inf else []
        limits += [f"at most {most:g}"] if most < math.inf else []
        raise ValueError(f"{name} must be {' and '.join(limits)}, got {tuple(bounds)}")
    if around is not None and not low <= around <= high:
        raise ValueError(f"{name} must contain {around:g}, got {tuple(bounds)}")


def check_probability(name: str, value: float) -> None:
    """Raise a ValueError unless `value` lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is a probability and must lie in [0, 1], got {value}")


def check_distribution(name: str, values: tuple[float, ...], kinds: tuple[str, ...]) -> None:
    """Raise a ValueError unless there is one probability per kind and they sum to 1."""
    if len(values) != len(kinds) or min(values) < 0 or abs(sum(values) - 1.0) > 1e-6:
        raise ValueError(f"{name} must be {len(kinds)} probabilities {kinds} that sum to 1, got {tuple(values)}")


def check_kernel_sizes(name: str, sizes: tuple[int, int]) -> None:
    """Raise a ValueError unless `sizes` is an ordered pair of odd positive sizes."""
    check_range(name, sizes, least=1)
    if any(size % 2 == 0 for size in sizes):
        raise ValueError(f"{name} must be odd, got {tuple(sizes)}")
