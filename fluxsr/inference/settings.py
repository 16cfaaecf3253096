"""Defines how a picture is upscaled, the same for all pictures of a batch, and checks it before work begins."""

from __future__ import annotations

from typing import NamedTuple

SCALE = 4.0  # of a student that does not say what it was trained for


class Sizes(NamedTuple):
    """How large results become: as for :func:`fluxsr.images.resize.output_size`."""

    scale: float = SCALE
    size: tuple[int, int] | None = None
    longest: int | None = None
    width: int | None = None
    height: int | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of a result."""
        from fluxsr.images.resize import output_size

        return output_size(
            height, width, self.scale, self.size, longest=self.longest, to_width=self.width, to_height=self.height
        )


class Settings(NamedTuple):
    """What is the same for all files of a batch; as for :func:`fluxsr.inference.upscale_files`."""

    sizes: Sizes = Sizes()
    steps: int = 1
    max_pixels: int = 100_000_000
    strength: float = 1.0
    quality: int | None = None


def check_numbers(steps: int, strength: float) -> None:
    """Check the number of steps and the strength."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= strength <= 2:
        raise ValueError(f"strength must lie in [0, 2], got {strength}")
