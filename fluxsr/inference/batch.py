"""Upscaling many files: what is to be done, what each result is called, and one outcome for every input."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from fluxsr.processes import ALONE, Processes

if TYPE_CHECKING:
    from fluxsr.inference.upscaler import Upscaler

PictureFormat = Literal["png", "jpg", "webp", "tif", "bmp"]


class Job(NamedTuple):
    """One file to upscale."""

    source: Path
    target: Path


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
    """Is told how a batch goes on; this one says nothing."""

    def start(self, jobs: int) -> None:
        """Take note of how many files there are."""

    def begin(self, name: str) -> None:
        """Take note of the next file."""

    def tiles(self, done: int, total: int) -> None:
        """Take note of the windows done of this file."""

    def end(self) -> None:
        """Take note that this file is done."""


def upscale_files(
    inputs: Sequence[str],
    output: str,
    scale: float = 4.0,
    size: tuple[int, int] | None = None,
    steps: int = 1,
    suffix: str = "",
    format: PictureFormat | None = None,
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
        steps: Euler steps; the models are trained for 1.
        suffix: Text added to each name, for example _x4.
        format: File format of the results (default: that of each input).
        skip_existing: Leave out what is there already.
        overwrite: Replace what is there already.
        max_pixels: Limit on inputs and results; 2e8 is 200 million (default: 1e8).
        load: Returns the upscaler; called once, and not before it is known that there is work.
        watcher: Is told how it goes on.
        processes: Those among whom the files are dealt out; all of them make the same call.

    Yields:
        One outcome for every file of this process's share; the first process's too for every input that is none.

    Raises:
        ValueError: if ``output`` can't hold the results, or the model can't be loaded.
    """
    watcher = watcher or Watcher()
    jobs, problems = plan_files(inputs, Path(output), suffix, format)
    if skip_existing:
        jobs = [job for job in jobs if not job.target.exists()]
    elif not overwrite:
        problems += [f"{job.target} exists: give --overwrite or --skip_existing" for job in jobs if job.target.exists()]
        jobs = [job for job in jobs if not job.target.exists()]
    # All have planned before one writes, and go by the first one's plan.
    jobs, problems = processes.gather((jobs, problems))[0]
    for problem in problems if processes.first else ():
        yield Outcome(error=problem)
    jobs = processes.share(jobs)
    if not jobs:
        return
    upscaler = load()
    watcher.start(len(jobs))
    for job in jobs:
        watcher.begin(job.source.name)
        outcome = upscale_one(upscaler, job, scale, size, steps, max_pixels, watcher.tiles)
        watcher.end()
        yield outcome


def plan_files(
    inputs: Sequence[str], output: Path, suffix: str = "", kind: str | None = None
) -> tuple[list[Job], list[str]]:
    """Return what to do, and what is wrong with single inputs.

    Args:
        inputs: Files, folders, patterns.
        output: A folder, or a file for a single image.
        suffix: Text added to each name.
        kind: Ending of the results, without its dot; by default that of each input.

    Raises:
        ValueError: if ``output`` can't hold the results.
    """
    from fluxsr.images import FORMATS
    from fluxsr.images.listing import expand_pattern

    problems: list[str] = []
    found: list[tuple[Path, Path]] = []  # the file, and its path below the output folder
    for entry in inputs:
        paths = [Path(entry)]
        if not paths[0].exists() and glob.has_magic(entry):
            paths = expand_pattern(entry)
            if not paths:
                problems.append(f"{entry} matches no file")
        for path in paths:
            if path.is_dir():
                inside, problem = _images_in(path, output)
                found += [(image, image.relative_to(path)) for image in inside]
                problems += problem
            else:
                found.append((path, Path(path.name)))
    to_file = output.suffix.lower() in FORMATS and not output.is_dir()
    if to_file and (len(found) > 1 or any(Path(entry).is_dir() for entry in inputs)):
        raise ValueError(f"{output} names one file, and there are {len(found)} images: give a folder after -o")
    if not to_file and output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: give a folder after -o, or a name that ends in {', '.join(FORMATS)}")
    jobs: dict[Path, Job] = {}
    for source, name in found:
        ending = f".{kind}" if kind else source.suffix if source.suffix.lower() in FORMATS else ".png"
        target = output if to_file else output / name.with_name(f"{name.stem}{suffix}{ending}")
        if target in jobs:
            problems.append(f"{source} and {jobs[target].source} would both become {target}: upscale them apart")
        else:
            jobs[target] = Job(source, target)
    return list(jobs.values()), problems


def _images_in(folder: Path, output: Path) -> tuple[list[Path], list[str]]:
    """Return the images in a folder, without the results of an earlier run, or what is wrong with it."""
    from fluxsr.images import list_images

    try:
        images = list_images(folder)
    except ValueError as error:
        return [], [str(error)]
    if output.resolve() != folder.resolve():
        images = [image for image in images if not image.resolve().is_relative_to(output.resolve())]
    return images, []


def upscale_one(
    upscaler: Upscaler,
    job: Job,
    scale: float = 4.0,
    size: tuple[int, int] | None = None,
    steps: int = 1,
    max_pixels: int = 100_000_000,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Upscale one file; whatever goes wrong is in the outcome, so that the next file has its turn."""
    start = time.perf_counter()
    try:
        height, width, warning = _read_upscale_write(upscaler, job, scale, size, steps, max_pixels, progress)
    except OSError as error:
        message = f"{error.strerror or error}"
        # A file in the making has a name of its own, which nobody knows.
        writing = error.filename is None or Path(str(error.filename)).name.startswith(".tmp-")
        return Outcome(error=f"can't write {job.target}: {message}" if writing else f"{error.filename}: {message}")
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        return Outcome(error=message if str(job.source) in message else f"{job.source}: {message}")
    return Outcome(job.target, (height, width), time.perf_counter() - start, warning=warning)


def _read_upscale_write(
    upscaler: Upscaler,
    job: Job,
    scale: float,
    size: tuple[int, int] | None,
    steps: int,
    max_pixels: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, int, str]:
    """Return the result's height and width, and a warning.

    Raises:
        ValueError: if the file is damaged or the result too large.
    """
    from fluxsr.images import check_format, read_picture, write_picture
    from fluxsr.images.resize import output_size

    with quiet_stderr():
        picture = read_picture(job.source, max_pixels)
    height, width = output_size(picture.pixels.shape[0], picture.pixels.shape[1], scale, size)
    if height * width > max_pixels:
        raise ValueError(
            f"{job.source} would become {width}x{height}, {height * width / 1e6:.1f} million pixels: more than the limit of "
            f"{max_pixels / 1e6:g}; allow more with --max_pixels {height * width}"
        )
    check_format(job.target, height, width)
    warning = ""
    if picture.frames > 1:
        warning = f"{job.source} has {picture.frames} pages or frames: only the first is upscaled"
    pixels = upscaler.upscale_pixels(picture.pixels, scale, size, steps, progress)
    write_picture(job.target, replace(picture, pixels=pixels))
    return height, width, warning


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
