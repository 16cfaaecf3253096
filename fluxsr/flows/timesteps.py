"""Samples times: how often training visits each time of the path."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Move times in ``[0, 1]`` towards the noise: ``t' = shift t / (1 + (shift - 1) t)``; 0 and 1 stay where they are.

    Raises:
        ValueError: If ``shift`` is not positive; above 1 it moves towards 1, more noise.

    Source: Esser et al. 2024 (arXiv 2403.03206), eq. 23; FLUX's schedulers.
    """
    if not shift > 0:
        raise ValueError(f"shift must be positive, got {shift}")
    return shift * t / (1 + (shift - 1) * t)


def resolution_shift(image_tokens: int) -> float:
    """Return FLUX.1-dev's shift for an image of so many tokens: ``exp(mu)``, ``mu`` linear in the token count.

    ``mu`` is 0.5 at 256 tokens (256x256 pixels, a token for each 2x2 latent positions) and 1.15 at 4,096 (1024x1024).

    Raises:
        ValueError: If ``image_tokens`` is not positive.

    Source: FLUX.1-dev's scheduler configuration (``base_shift``, ``max_shift``).
    """
    if image_tokens < 1:
        raise ValueError(f"image_tokens must be at least 1, got {image_tokens}")
    return math.exp(0.5 + (1.15 - 0.5) * (image_tokens - 256) / (4096 - 256))


class TimeSampler(nn.Module, ABC):
    """Draws times in ``[0, 1]`` for a batch.

    Args:
        shift: Moves every drawn time towards the noise by :func:`shift_times`; 1 leaves them.
            ``resolution_shift(tokens)`` gives FLUX's own value.
    """

    def __init__(self, shift: float = 1.0) -> None:
        super().__init__()
        if not shift > 0:
            raise ValueError(f"shift must be positive, got {shift}")
        self.shift = shift

    @abstractmethod
    def draw(self, batch_size: int, generator: torch.Generator | None) -> Tensor:
        """Return unshifted times ``(batch_size,)`` float32, on the generator's device (CPU without one)."""

    def grid(self) -> Tensor | None:
        """Return all times that are ever drawn, ascending float32, if these are finitely many; otherwise ``None``."""
        return None

    def forward(self, batch_size: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Return times ``(batch_size,)``, float32, in ``[0, 1]``, on the generator's device."""
        return shift_times(self.draw(batch_size, generator), self.shift)

    def extra_repr(self) -> str:
        """Show the numbers that define the sampler."""
        return ", ".join(f"{name}={value}" for name, value in vars(self).items() if isinstance(value, float))


class UniformTimes(TimeSampler):
    """Uniform times: every part of the path counts alike (FluxSR, algorithm 1). See :class:`TimeSampler` for ``shift``."""

    def draw(self, batch_size: int, generator: torch.Generator | None) -> Tensor:
        """Return times uniform on ``[0, 1)``."""
        return torch.rand(batch_size, generator=generator, device=generator.device if generator else None)


class LogitNormalTimes(TimeSampler):
    """Logit-normal times: the middle of the path, where the velocity is hardest, is visited more often.

    Args:
        mean: Mean of the normal variable before the sigmoid; above 0 leans towards noise.
        std: Standard deviation of the same variable, positive; small values concentrate the times.
        shift: Shift of the times towards noise, as in :class:`TimeSampler`.

    Source: Esser et al. 2024 (arXiv 2403.03206), section 3.1; mean 0 and std 1 are their best.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> None:
        super().__init__(shift)
        if not std > 0:
            raise ValueError(f"std must be positive, got {std}")
        self.mean = float(mean)
        self.std = float(std)

    def draw(self, batch_size: int, generator: torch.Generator | None) -> Tensor:
        """Return the sigmoid of a normal variable."""
        normal = torch.randn(batch_size, generator=generator, device=generator.device if generator else None)
        return torch.sigmoid(self.mean + self.std * normal)


class GridTimes(TimeSampler):
    """Times on a grid, each as likely as any other: ``k / (steps - 1)`` for ``k = 0 ... steps - 1``.

    A model that only ever sees these times needs no modulation layers, only their outputs there
    (:func:`fluxsr.models.tabulate_modulation`). Ours; FLUX itself is sampled on such grids.

    Args:
        steps: Number of times, both ends included, at least 2. 16 is our default.
        shift: Shift of the inner times towards noise, as in :class:`TimeSampler`.
    """

    def __init__(self, steps: int = 16, shift: float = 1.0) -> None:
        super().__init__(shift)
        if steps < 2:
            raise ValueError(f"steps must be at least 2 (both ends), got {steps}")
        self.steps = steps

    def grid(self) -> Tensor:
        """Return the grid, ``(steps,)``."""
        return shift_times(torch.arange(self.steps, device="cpu") / (self.steps - 1), self.shift)

    def draw(self, batch_size: int, generator: torch.Generator | None) -> Tensor:
        """Return unshifted grid times."""
        device = generator.device if generator else None
        return torch.randint(self.steps, (batch_size,), generator=generator, device=device) / (self.steps - 1)

    def extra_repr(self) -> str:
        """Show the numbers that define the sampler."""
        return f"steps={self.steps}, {super().extra_repr()}"
