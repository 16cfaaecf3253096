"""Upscales many files, with one outcome for every input."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fluxsr.inference.jobs import Job, plan_files, writable
from fluxsr.inference.settings import SCALE, Settings, Sizes, check_numbers
from fluxsr.processes import ALONE, Processes

if TYPE_CHECKING:
    from fluxsr.images.convert import Pixels
    from fluxsr.images.write import PictureFile
    from fluxsr.inference.engine import Progress
    from fluxsr.inference.upscaler import Upscaler

PictureFormat = Literal["png", "jpg", "webp", "tif", "bmp", "avif"]

# Files whose sizes are looked up before the work, for the time that is left.
_MOST_SIZES = 2000


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


class Work(NamedTuple):
    """A picture on its way, with the file of its result and what the user should know of it."""

    file: PictureFile
    pixels: Pixels
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()


def upscale_files(
    inputs: Sequence[str],
    output: str,
    scale: float | None = None,
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
    progress: Callable[[float, float, str], None] | None = None,
    processes: Processes = ALONE,
) -> Iterator[Outcome]:
    """Upscale photos of any size by any factor, in bounded memory.

    Args:
        inputs: Image files, folders, patterns such as 'old/*.png'.
        output: A folder; or a file, for a single image.
        scale: Magnification; by default the model's own, often 4.
        size: Exact size of the results, instead of a scale.
        longest: Longest side in pixels, instead of a scale.
        width: Width in pixels, instead of a scale.
        height: Height in pixels, instead of a scale.
        strength: Strength of the change, 0 to 2; 1 is what the models are trained for (default: 1).
        steps: Euler steps; models are trained for 1.
        suffix: Text added to each name, for example _x4.
        format: File format of the results (default: that of each input, PNG where it is only read).
        quality: Quality of JPEG, WebP and AVIF, 1 to 100; from 90 on, JPEG and AVIF keep the colors' full resolution (4:4:4)
            (default: 95, and lossless WebP stays lossless).
        skip_existing: Skip inputs whose result exists already.
        overwrite: Replace results that exist already.
        max_pixels: Limit on inputs and results; 2e8 is 200 million (default: 1e8).
        load: Returns the upscaler; called once, and not before it is known that there is work.
        progress: Called with the megapixels done of this process, those of all its results, and the name of the file at hand.
        processes: The processes that share the files; each of them makes the same call.

    Yields:
        One outcome for every file of this process's share; the first process's too for every input that is none.

    Raises:
        ValueError: If ``output`` can't hold the results, options contradict each other, or the model can't be loaded.
    """
    from fluxsr.images.formats import format_of

    sizes = Sizes(SCALE if scale is None else scale, size, longest, width, height)
    sizes.of(100, 100)  # numbers that are wrong are so for all
    check_numbers(steps, strength)
    if skip_existing and overwrite:
        raise ValueError("skip_existing and overwrite contradict each other: give one of them")
    check_quality(quality, format, output)
    jobs, problems, left_out = plan_files(inputs, output, suffix, format)
    if quality is not None and jobs and not any(format_of(job.target).lossy for job in jobs):
        raise ValueError(
            f"no result has a quality ({jobs[0].target} is lossless): leave it out, or give format jpg, webp or avif"
        )
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
    if scale is None:
        sizes = sizes._replace(scale=upscaler.scale)
    settings = Settings(sizes, steps, max_pixels, strength, quality)
    # A CPU would read, write and compute on the same cores.
    run = one_by_one if upscaler.device.type == "cpu" else overlapped
    yield from run(upscaler, jobs, settings, _reports(jobs, sizes, progress) if progress else [None] * len(jobs))


def _reports(
    jobs: Sequence[Job], sizes: Sizes, progress: Callable[[float, float, str], None]
) -> list[Callable[[int, int], None]]:
    """Return for each file what turns its windows done into megapixels of the whole batch."""
    sides = [_megapixels_of(job.source, sizes) for job in jobs[:_MOST_SIZES]]
    # The sizes of many others would take long to look up.
    sides += [sum(sides) / len(sides)] * (len(jobs) - len(sides))
    before = list(accumulate(sides, initial=0.0))

    def report(number: int, done: int, total: int) -> None:
        name = f"{number + 1}/{len(jobs)} {jobs[number].source.name}"
        progress(before[number] + sides[number] * done / max(total, 1), max(before[-1], 1e-6), name)

    return [partial(report, number) for number in range(len(jobs))]


def one_by_one(
    upscaler: Upscaler, jobs: Sequence[Job], settings: Settings, reports: Sequence[Progress | None]
) -> Iterator[Outcome]:
    """Upscale files, each of which is written before the next one is read; yields one outcome for each, in their order."""
    for job, report in zip(jobs, reports, strict=True):
        yield upscale_one(upscaler, job, settings, report)


def overlapped(
    upscaler: Upscaler, jobs: Sequence[Job], settings: Settings, reports: Sequence[Progress | None]
) -> Iterator[Outcome]:
    """As :func:`one_by_one`; while the device works on one file, the next is read and the one before is written.

    So at most three are in memory. An outcome comes when the next file is computed, or at an interruption.
    """
    pending: tuple[Job, Future[Work], float] | None = None

    def settle() -> Iterator[Outcome]:
        nonlocal pending
        if pending is not None:
            job, writing, seconds = pending
            start = time.perf_counter()
            outcome = outcome_of(job, writing.result)
            pending = None
            yield outcome if outcome.error else outcome._replace(seconds=seconds + time.perf_counter() - start)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def ahead(job: Job) -> Callable[[], Work]:
            """Begin to read a file, and return what waits for it."""
            if _is_tiff(job.source):  # whose library has to be kept quiet, and for that time all of this process
                return partial(read, job, settings)
            return reader.submit(read, job, settings, quiet=False).result

        following = ahead(jobs[0])
        try:
            for number, (job, report) in enumerate(zip(jobs, reports, strict=True)):
                start, work = time.perf_counter(), _settled(following)
                # Only now: two readers at a time would take each other's settings of Pillow and of OpenCV for the process'.
                if number + 1 < len(jobs):
                    following = ahead(jobs[number + 1])
                computed = _settled(lambda one, to: compute(upscaler, one.result(), settings, to), work, report)
                seconds = time.perf_counter() - start
                yield from settle()
                writing = writer.submit(lambda one, done: write(one, done.result(), settings), job, computed)
                pending = (job, writing, seconds)
            yield from settle()
        except KeyboardInterrupt:
            yield from settle()  # it is written, and its line is still to be said
            raise


def _settled(part: Callable[..., Work], *arguments: Any) -> Future[Work]:
    """Do a part of the work; return what came of it, also where that is an error."""
    done: Future[Work] = Future()
    try:
        done.set_result(part(*arguments))
    except Exception as error:
        done.set_exception(error)
    return done


def _is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF does, whatever its name; also where it can't be read."""
    from fluxsr.images.formats import told_format

    try:
        with open(path, "rb") as file:
            return told_format(file.read(64)) == "TIFF"
    except OSError:
        return True


def check_quality(quality: int | None, format: str | None, output: str | Path) -> None:
    """Check that a quality is one, and that there is something to which it applies."""
    from fluxsr.images.formats import FORMATS

    if quality is None:
        return
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must lie between 1 and 100, got {quality}")
    kind = FORMATS.get(f".{format}" if format else Path(output).suffix.lower())
    if kind is not None and not kind.lossy and not Path(output).is_dir():
        raise ValueError(f"{kind.name} is lossless and has no quality: leave it out, or write JPEG, WebP or AVIF")


def _megapixels_of(path: Path, sizes: Sizes) -> float:
    """Return how large the result of a file will be; 0 for one that can't be read."""
    from fluxsr.images import read_size

    try:
        with quiet_stderr():
            height, width = sizes.of(*read_size(path))
    except (ValueError, OSError):
        return 0.0
    return height * width / 1e6


def upscale_one(upscaler: Upscaler, job: Job, settings: Settings, progress: Progress | None = None) -> Outcome:
    """Upscale one file; whatever goes wrong is in the outcome, so that the next file has its turn."""
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
    """Read a file, and check that its result is one that can be written."""
    from fluxsr.images import read_picture
    from fluxsr.images.write import PictureFile

    with quiet_stderr() if quiet else nullcontext():
        picture = read_picture(job.source, settings.max_pixels)
    old_height, old_width = picture.pixels.shape[:2]
    height, width = settings.sizes.of(old_height, old_width)
    if height * width > settings.max_pixels:
        raise ValueError(
            f"{job.source} would become {width}x{height}, {height * width / 1e6:.1f} million pixels: more than the limit of "
            f"{settings.max_pixels / 1e6:g}; allow more with --max_pixels {height * width}"
        )
    warnings = []
    if picture.frames > 1:
        warnings.append(f"{job.source} has {picture.frames} pages or frames: only the first is upscaled")
    if _is_stretched(old_height, old_width, height, width):
        warnings.append(
            f"{job.source} is stretched from {old_width}x{old_height} to {width}x{height}, another aspect ratio: "
            "--longest, --width and --height keep it"
        )
    return Work(PictureFile(job.target, picture, height, width), picture.pixels, (height, width), tuple(warnings))


def _is_stretched(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether a size changes the shape of a picture, by more than rounding and a hundredth."""
    factor = math.sqrt(new_height * new_width / (height * width))
    rounded = abs(height * factor - new_height) <= 1 and abs(width * factor - new_width) <= 1
    return not rounded and abs(new_width * height / (new_height * width) - 1) > 0.01


def compute(upscaler: Upscaler, work: Work, settings: Settings, progress: Progress | None = None) -> Work:
    """Return the work with the upscaled pixels."""
    pixels = upscaler.upscale_pixels(
        work.pixels, size=work.size, steps=settings.steps, progress=progress, strength=settings.strength
    )
    return work._replace(pixels=pixels)


def write(job: Job, work: Work, settings: Settings) -> Work:
    """Write a result, and add to the warnings what its format can't hold."""
    lost = work.file.write(work.pixels, settings.quality)
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


class Tally:
    """Counts the outcomes of a batch."""

    def __init__(self) -> None:
        self.done = self.failed = self.pixels = 0
        self.seconds = 0.0

    def add(self, outcome: Outcome) -> None:
        """Take in one."""
        if outcome.error:
            self.failed += 1
        elif outcome.target is not None:
            self.done += 1
            self.pixels += outcome.size[0] * outcome.size[1]
            self.seconds += outcome.seconds

    def __add__(self, other: Tally) -> Tally:
        """Return the counts of both, of two processes for example."""
        both = Tally()
        both.done, both.failed = self.done + other.done, self.failed + other.failed
        both.pixels, both.seconds = self.pixels + other.pixels, self.seconds + other.seconds
        return both

    def line(self) -> str:
        """Return what there was, in one line: counts, pixels, speed, and memory where the system reports it."""
        memory = peak_memory()
        return (
            f"{self.done} upscaled, {self.failed} failed; {self.pixels / 1e6:.1f} megapixels in {self.seconds:.1f} s "
            f"({self.pixels / 1e6 / max(self.seconds, 1e-9):.2f} MP/s)"
            + (f", peak memory {memory / 2**30:.2f} GiB" if memory else "")
        )


def peak_memory() -> int:
    """Return the most bytes that this process has held so far; 0 where the system doesn't report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
