"""Reads, upscales and writes one file of a batch, each by a function of its own, so that they may overlap."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fluxsr.inference.jobs import Job

if TYPE_CHECKING:
    from fluxsr.images import Picture
    from fluxsr.inference.upscaler import Upscaler


class Outcome(NamedTuple):
    """The result of one input, or its error.

    Attributes:
        target: The file that was written; ``None`` where none was.
        size: (height, width) of the result.
        seconds: Time that it took.
        error: Message of an error; then nothing was written.
        warning: Warning about the result.
    """

    target: Path | None = None
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: str = ""
    warning: str = ""


class Sizes(NamedTuple):
    """How large results become: as for :func:`fluxsr.images.resize.output_size`."""

    scale: float = 4.0
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


class Work(NamedTuple):
    """A picture on its way, with the (height, width) of its result and what the user should know of it."""

    picture: Picture
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()


def upscale_one(
    upscaler: Upscaler, job: Job, settings: Settings | None = None, progress: Callable[[int, int], None] | None = None
) -> Outcome:
    """Upscale one file; whatever goes wrong is in the outcome, so that the next file has its turn."""
    settings = settings or Settings()
    start = time.perf_counter()

    def work() -> Work:
        return write(job, compute(upscaler, read(job, settings), settings, progress), settings)

    outcome = outcome_of(job, work)
    return outcome._replace(seconds=0.0 if outcome.error else time.perf_counter() - start)


def outcome_of(job: Job, work: Callable[[], Work]) -> Outcome:
    """Return what became of a file whose last part is ``work``."""
    try:
        done = work()
    except OSError as error:
        message = f"{error.strerror or error}"
        # A file in the making has a name of its own, which nobody knows.
        writing = error.filename is None or Path(str(error.filename)).name.startswith(".tmp-")
        return Outcome(error=f"can't write {job.target}: {message}" if writing else f"{error.filename}: {message}")
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        return Outcome(error=message if str(job.source) in message else f"{job.source}: {message}")
    return Outcome(job.target, done.size, warning="; ".join(done.warnings))


def read(job: Job, settings: Settings, quiet: bool = True) -> Work:
    """Read a file, and check that its result is one that can be written.

    Args:
        job: The file.
        settings: Settings of the batch.
        quiet: Keep C libraries from writing to stderr meanwhile, and with them all of this process.

    Raises:
        OSError: If it can't be read.
        ValueError: If the file is damaged or the result too large.
    """
    from fluxsr.images import check_format, read_picture
    from fluxsr.images.resize import is_stretched
    from fluxsr.images.write import check_colors

    with quiet_stderr() if quiet else nullcontext():
        picture = read_picture(job.source, settings.max_pixels)
    old_height, old_width, channels = picture.pixels.shape
    height, width = settings.sizes.of(old_height, old_width)
    if height * width > settings.max_pixels:
        raise ValueError(
            f"{job.source} would become {width}x{height}, {height * width / 1e6:.1f} million pixels: more than the limit of "
            f"{settings.max_pixels / 1e6:g}; allow more with --max_pixels {height * width}"
        )
    check_format(job.target, height, width, channels)
    check_colors(job.target, picture)
    warnings = []
    if picture.frames > 1:
        warnings.append(f"{job.source} has {picture.frames} pages or frames: only the first is upscaled")
    if is_stretched(old_height, old_width, height, width):
        warnings.append(
            f"{job.source} is stretched from {old_width}x{old_height} to {width}x{height}, another aspect ratio: "
            "--longest, --width and --height keep it"
        )
    return Work(picture, (height, width), tuple(warnings))


def compute(
    upscaler: Upscaler, work: Work, settings: Settings, progress: Callable[[int, int], None] | None = None
) -> Work:
    """Return the work with the upscaled pixels.

    Raises:
        ValueError: If the model's result has NaN, or not even the smallest tile fits into memory.
    """
    pixels = upscaler.upscale_pixels(
        work.picture.pixels, size=work.size, steps=settings.steps, progress=progress, strength=settings.strength
    )
    return work._replace(picture=replace(work.picture, pixels=pixels))


def write(job: Job, work: Work, settings: Settings) -> Work:
    """Write a result, and add to the warnings what its format can't hold.

    Raises:
        OSError: If it can't be written.
    """
    from fluxsr.images import write_picture

    lost = write_picture(job.target, work.picture, settings.quality)
    if not lost:
        return work
    line = f"{job.target} can't hold all metadata and pixels of {job.source}, and lacks: {', '.join(lost)}"
    return work._replace(warnings=(*work.warnings, line))


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep C libraries from writing to stderr: of a damaged file libtiff prints lines that name no file, past Python."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    sys.stderr.flush()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
