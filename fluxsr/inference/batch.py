"""Upscaling many files: one outcome for every input."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from fluxsr.inference.jobs import Job, plan_files, writable
from fluxsr.processes import ALONE, Processes

if TYPE_CHECKING:
    from fluxsr.inference.upscaler import Upscaler

PictureFormat = Literal["png", "jpg", "webp", "tif", "bmp", "avif"]

# Files whose sizes are looked up before the work, for the time that is left.
_MOST_SIZES = 2000


class Outcome(NamedTuple):
    """What became of one input, or what is wrong with it.

    Attributes:
        target: The file that was written; ``None`` where none was.
        size: (height, width) of the result.
        seconds: What it took.
        error: What went wrong; then nothing was written.
        warning: What the user should know of a result.
    """

    target: Path | None = None
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    error: str = ""
    warning: str = ""


class Watcher:
    """Is told how a batch goes on; this one says nothing.

    Attributes:
        wants_pixels: Whether the sizes of all files are to be looked up before the work.
    """

    wants_pixels = False

    def start(self, jobs: int, pixels: int) -> None:
        """Take note of how many files there are, and of how many pixels their results have; 0 is not known."""

    def begin(self, name: str, pixels: int) -> None:
        """Take note of the next file, and of its result's pixels; 0 is not known."""

    def tiles(self, done: int, total: int) -> None:
        """Take note of the windows done of this file."""

    def end(self) -> None:
        """Take note that this file is done."""


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


def upscale_files(
    inputs: Sequence[str],
    output: str,
    scale: float = 4.0,
    size: tuple[int, int] | None = None,
    longest: int | None = None,
    width: int | None = None,
    height: int | None = None,
    strength: float = 1.0,
    steps: int = 1,
    suffix: str = "",
    format: PictureFormat | None = None,
    quality: int | None = None,
    skip_existing: bool = False,
    overwrite: bool = False,
    max_pixels: int = 100_000_000,
    *,
    load: Callable[[], Upscaler],
    watcher: Watcher | None = None,
    processes: Processes = ALONE,
) -> Iterator[Outcome]:
    """Upscale photos of any size by any factor, in bounded memory.

    Args:
        inputs: Image files, folders, patterns such as 'old/*.png'.
        output: A folder; or a file, for a single image.
        scale: Magnification, any number; 1 restores only.
        size: Exact size of the results, instead.
        longest: Longest side of the results in pixels, instead.
        width: Width of the results in pixels, instead.
        height: Height of the results in pixels, instead.
        strength: How far to go from the input, 0 to 2; 1 is what the models are trained for (default: 1).
        steps: Euler steps; the models are trained for 1.
        suffix: Text added to each name, for example _x4.
        format: File format of the results (default: that of each input, PNG where it is only read).
        quality: Quality of JPEG, WebP and AVIF, 1 to 100; from 90 on, JPEG and AVIF keep the colors' full resolution (4:4:4)
            (default: 95, and lossless WebP stays lossless).
        skip_existing: Leave out what is there already.
        overwrite: Replace what is there already.
        max_pixels: Limit on inputs and results; 2e8 is 200 million (default: 1e8).
        load: Returns the upscaler; called once, and not before it is known that there is work.
        watcher: Is told how it goes on.
        processes: Those among whom the files are dealt out; all of them make the same call.

    Yields:
        One outcome for every file of this process's share; the first process's too for every input that is none.

    Raises:
        ValueError: if ``output`` can't hold the results, options contradict each other, or the model can't be loaded.
    """
    watcher = watcher or Watcher()
    sizes = Sizes(scale, size, longest, width, height)
    sizes.of(100, 100)  # numbers that are wrong are so for all
    if not 0 <= strength <= 2:
        raise ValueError(f"strength must lie in [0, 2], got {strength}")
    if skip_existing and overwrite:
        raise ValueError("skip_existing and overwrite contradict each other: give one of them")
    check_quality(quality, format, output)
    jobs, problems, left_out = plan_files(inputs, output, suffix, format)
    if skip_existing:
        jobs = [job for job in jobs if not job.target.exists()]
    elif not overwrite:
        problems += [f"{job.target} exists: give --overwrite or --skip_existing" for job in jobs if job.target.exists()]
        jobs = [job for job in jobs if not job.target.exists()]
    jobs, unwritable = writable(jobs)
    # All have planned before one writes, and go by the first one's plan.
    jobs, problems, left_out = processes.gather((jobs, [*problems, *unwritable], left_out))[0]
    for line in left_out if processes.first else ():
        yield Outcome(warning=line)
    for problem in problems if processes.first else ():
        yield Outcome(error=problem)
    jobs = processes.share(jobs)
    if not jobs:
        return
    upscaler = load()
    pixels = [_pixels_of(job.source, sizes) if watcher.wants_pixels else 0 for job in jobs[:_MOST_SIZES]]
    mean = sum(pixels) // len(pixels)  # of the many others, whose sizes would take long to look up
    pixels += [mean] * (len(jobs) - len(pixels))
    watcher.start(len(jobs), sum(pixels))
    for job, number in zip(jobs, pixels, strict=True):
        watcher.begin(job.source.name, number)
        outcome = upscale_one(
            upscaler, job, sizes, steps, max_pixels, watcher.tiles, strength=strength, quality=quality
        )
        watcher.end()
        yield outcome


def check_quality(quality: int | None, format: str | None, output: str | Path) -> None:
    """Check that a quality is one, and that there is something to which it applies.

    Raises:
        ValueError: if it isn't.
    """
    from fluxsr.images.formats import FORMATS

    if quality is None:
        return
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must lie between 1 and 100, got {quality}")
    kind = FORMATS.get(f".{format}" if format else Path(output).suffix.lower())
    if kind is not None and not kind.lossy and not Path(output).is_dir():
        raise ValueError(f"{kind.name} is lossless and has no quality: leave it out, or write JPEG, WebP or AVIF")


def _pixels_of(path: Path, sizes: Sizes) -> int:
    """Return how many pixels the result of a file will have; 0 for one that can't be read."""
    from fluxsr.images import read_size

    try:
        with quiet_stderr():
            height, width = sizes.of(*read_size(path))
    except (ValueError, OSError):
        return 0
    return height * width


def upscale_one(
    upscaler: Upscaler,
    job: Job,
    sizes: Sizes = Sizes(),  # noqa: B008  # a tuple
    steps: int = 1,
    max_pixels: int = 100_000_000,
    progress: Callable[[int, int], None] | None = None,
    *,
    strength: float = 1.0,
    quality: int | None = None,
) -> Outcome:
    """Upscale one file; whatever goes wrong is in the outcome, so that the next file has its turn."""
    start = time.perf_counter()
    try:
        height, width, warnings = _read_upscale_write(
            upscaler, job, sizes, steps, max_pixels, progress, strength, quality
        )
    except OSError as error:
        message = f"{error.strerror or error}"
        # A file in the making has a name of its own, which nobody knows.
        writing = error.filename is None or Path(str(error.filename)).name.startswith(".tmp-")
        return Outcome(error=f"can't write {job.target}: {message}" if writing else f"{error.filename}: {message}")
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        return Outcome(error=message if str(job.source) in message else f"{job.source}: {message}")
    return Outcome(job.target, (height, width), time.perf_counter() - start, warning="; ".join(warnings))


def _read_upscale_write(
    upscaler: Upscaler,
    job: Job,
    sizes: Sizes,
    steps: int,
    max_pixels: int,
    progress: Callable[[int, int], None] | None,
    strength: float,
    quality: int | None,
) -> tuple[int, int, list[str]]:
    """Return the result's height and width, and warnings.

    Raises:
        ValueError: if the file is damaged or the result too large.
    """
    from fluxsr.images import check_format, read_picture, write_picture
    from fluxsr.images.resize import is_stretched
    from fluxsr.images.write import check_colors

    with quiet_stderr():
        picture = read_picture(job.source, max_pixels)
    old_height, old_width, channels = picture.pixels.shape
    height, width = sizes.of(old_height, old_width)
    if height * width > max_pixels:
        raise ValueError(
            f"{job.source} would become {width}x{height}, {height * width / 1e6:.1f} million pixels: more than the limit of "
            f"{max_pixels / 1e6:g}; allow more with --max_pixels {height * width}"
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
    pixels = upscaler.upscale_pixels(
        picture.pixels, size=(height, width), steps=steps, progress=progress, strength=strength
    )
    lost = write_picture(job.target, replace(picture, pixels=pixels), quality)
    if lost:
        warnings.append(
            f"{job.target} can't hold all metadata and pixels of {job.source}, and lacks: {', '.join(lost)}"
        )
    return height, width, warnings


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
