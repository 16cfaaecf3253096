"""``fluxsr upscale``: photos in, larger photos out."""

from __future__ import annotations

import argparse
import glob
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fluxsr.cli.main import fail
from fluxsr.cli.run import argument_parser
from fluxsr.cli.values import count, pixels, positive, tile, width_and_height

if TYPE_CHECKING:
    from fluxsr.inference import Upscaler

EXAMPLES = """
fluxsr upscale photo.jpg -o large.png
fluxsr upscale holiday/ old/*.tif -o large/ --scale 2 --format png
fluxsr upscale photo.jpg -o wall.png --size 3840x2160
fluxsr upscale photo.jpg -o mine.png --model nano --lora outputs/fluxsr_nano/backbone.safetensors
"""

NOTES = """\
Folders keep their structure. PNG, JPEG, WebP, TIFF and BMP are read and written, 8 and 16 bit, gray, color and alpha, with
their ICC profile, EXIF and resolution.

Exit code: 0 if all went well, 1 if some files failed, 2 for a mistake in the options."""


class Job(NamedTuple):
    """One file to upscale."""

    source: Path
    target: Path


def main(arguments: list[str]) -> None:
    """Run the command."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    jobs, problems = plan(options.inputs, Path(options.output), options.suffix, options.format)
    if options.skip_existing:
        jobs = [job for job in jobs if not job.target.exists()]
    elif not options.overwrite:
        problems += [f"{job.target} exists: give --overwrite or --skip-existing" for job in jobs if job.target.exists()]
        jobs = [job for job in jobs if not job.target.exists()]
    for problem in problems:
        complain(problem)
    failed = bool(problems)
    if jobs:
        upscaler = load(options)
        with progress_bars(len(jobs)) as bars:
            for job in jobs:
                failed |= not attempt(upscaler, job, options, bars)
    if failed:
        raise SystemExit(1)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argument_parser(
        "upscale",
        "Upscale photos of any size by any factor, in bounded memory.",
        "IN ... -o OUT [options]",
        EXAMPLES,
        NOTES,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="image files, folders, patterns such as 'old/*.png'")
    add("-o", "--output", required=True, metavar="OUT", help="a folder; or a file, for a single image")
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--scale",
        type=positive,
        default=4.0,
        metavar="X",
        help="magnification, any number; 1 restores only (default: 4)",
    )
    target.add_argument("--size", type=width_and_height, metavar="WxH", help="exact size of the results, instead")
    add("--steps", type=count, default=1, metavar="N", help="Euler steps; the models are trained for 1 (default: 1)")
    model_options(parser)
    add("--suffix", default="", metavar="TEXT", help="added to each name, for example _x4")
    add(
        "--format",
        choices=("png", "jpg", "webp", "tif", "bmp"),
        help="file format of the results (default: that of each input)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--skip-existing", action="store_true", help="leave out what is there already")
    existing.add_argument("--overwrite", action="store_true", help="replace what is there already")
    return parser


def model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`load` reads: which model, and how it runs."""
    add = parser.add_argument
    add(
        "--model",
        metavar="MODEL",
        help="shipped name, .safetensors file, hub id or folder (default: nano-student)",
    )
    add("--lora", metavar="FILE", help="adapter on that model, which must be given then")
    add("--prompt", metavar="FILE", help="prompt that it was trained with, made by fluxsr prompt")
    add("--guidance", type=float, metavar="X", help="for models with a guidance embedding (FLUX.1-dev: 3.5)")
    add("--autoencoder", metavar="AE", help="pixel, hub id or folder (default: the model's own)")
    add(
        "--start-time",
        type=float,
        metavar="T",
        help="time of the LR latents, in (0, 1]: lr_time in training, where the model's file does not say it",
    )
    add(
        "--tile",
        type=tile,
        default="auto",
        metavar="auto|N|off",
        help="pixels a side worked on at a time (default: auto)",
    )
    add(
        "--color-fix",
        choices=("wavelet", "adain", "none"),
        default="wavelet",
        help="keep the input's colors: wavelet its low frequencies, adain its mean and deviation (default: wavelet)",
    )
    add("--device", default="auto", metavar="NAME", help="auto, cuda, mps or cpu (default: auto)")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: what suits model and device)",
    )
    add(
        "--max-pixels",
        type=pixels,
        default=100_000_000,
        metavar="N",
        help="refuse larger inputs and results; 2e8 is 200 million (default: 1e8)",
    )


def plan(inputs: list[str], output: Path, suffix: str, kind: str | None) -> tuple[list[Job], list[str]]:
    """Return what to do, and what is wrong with single inputs; a wrong ``output`` ends the program."""
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
                inside, problem = images_in(path, output)
                found += [(image, image.relative_to(path)) for image in inside]
                problems += problem
            else:
                found.append((path, Path(path.name)))
    to_file = output.suffix.lower() in FORMATS and not output.is_dir()
    if to_file and (len(found) > 1 or any(Path(entry).is_dir() for entry in inputs)):
        fail(f"{output} names one file, and there are {len(found)} images: give a folder after -o")
    if not to_file and output.exists() and not output.is_dir():
        fail(f"{output} is a file: give a folder after -o, or a name that ends in {', '.join(FORMATS)}")
    jobs: dict[Path, Job] = {}
    for source, name in found:
        ending = f".{kind}" if kind else source.suffix if source.suffix.lower() in FORMATS else ".png"
        target = output if to_file else output / name.with_name(f"{name.stem}{suffix}{ending}")
        if target in jobs:
            problems.append(f"{source} and {jobs[target].source} would both become {target}: upscale them apart")
        else:
            jobs[target] = Job(source, target)
    return list(jobs.values()), problems


def images_in(folder: Path, output: Path) -> tuple[list[Path], list[str]]:
    """Return the images in a folder, without the results of an earlier run, or what is wrong with it."""
    from fluxsr.images import list_images

    try:
        images = list_images(folder)
    except ValueError as error:
        return [], [str(error)]
    if output.resolve() != folder.resolve():
        images = [image for image in images if not image.resolve().is_relative_to(output.resolve())]
    return images, []


def load(options: argparse.Namespace) -> Upscaler:
    """Load the model; a mistake ends the program."""
    from fluxsr.inference import Upscaler

    try:
        return Upscaler.from_pretrained(
            options.model,
            lora=options.lora,
            prompt=options.prompt,
            guidance=options.guidance,
            autoencoder=options.autoencoder,
            start_time=options.start_time,
            tile=options.tile,
            color_fix=options.color_fix,
            device=options.device,
            dtype=options.dtype,
        )
    except RuntimeError as error:  # a device that is there and fails, weights of other shapes
        fail(f"can't load {options.model or 'the shipped student'}: {error}")


def attempt(upscaler: Upscaler, job: Job, options: argparse.Namespace, bars: Bars) -> bool:
    """Upscale one file; whatever goes wrong is one line on stderr, and the next file has its turn."""
    start = time.perf_counter()
    bars.begin(job.source.name)
    try:
        height, width = upscale_file(upscaler, job, options, bars.tiles)
    except OSError as error:
        message = f"{error.strerror or error}"
        # A file in the making has a name of its own, which nobody knows.
        writing = error.filename is None or Path(str(error.filename)).name.startswith(".tmp-")
        complain(f"can't write {job.target}: {message}" if writing else f"{error.filename}: {message}")
        return False
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        complain(message if str(job.source) in message else f"{job.source}: {message}")
        return False
    finally:
        bars.end()
    print(f"{job.target} {width}x{height}, {time.perf_counter() - start:.1f} s")
    return True


def upscale_file(
    upscaler: Upscaler, job: Job, options: argparse.Namespace, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Read, upscale and write one file; return the result's (height, width).

    Raises:
        ValueError: if the file is damaged or the result too large.
    """
    from fluxsr.images import check_format, read_picture, write_picture
    from fluxsr.images.resize import output_size

    with quiet_libraries():
        picture = read_picture(job.source, options.max_pixels)
    height, width = output_size(picture.pixels.shape[0], picture.pixels.shape[1], options.scale, options.size)
    if height * width > options.max_pixels:
        raise ValueError(
            f"{job.source} would become {width}x{height}, {height * width / 1e6:.1f} million pixels: more than the limit of "
            f"{options.max_pixels / 1e6:g}; allow more with --max-pixels {height * width}"
        )
    check_format(job.target, height, width)
    if picture.frames > 1:
        complain(f"{job.source} has {picture.frames} pages or frames: only the first is upscaled", kind="warning")
    pixels = upscaler.upscale_pixels(picture.pixels, options.scale, options.size, options.steps, progress)
    write_picture(job.target, replace(picture, pixels=pixels))
    return height, width


@contextmanager
def quiet_libraries() -> Iterator[None]:
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


class Bars:
    """Progress on stderr: one bar for the images, one for the windows of the image at hand. Silent without a terminal."""

    def __init__(self, rich_progress: Any, images: int) -> None:
        self._progress = rich_progress
        if rich_progress is not None:
            self._images = rich_progress.add_task("images", total=images)
            self._tiles = rich_progress.add_task("", total=1, visible=False)

    def begin(self, name: str) -> None:
        """Start with the next image."""
        if self._progress is not None:
            self._progress.reset(self._tiles, description=name, total=1, visible=True)

    def tiles(self, done: int, total: int) -> None:
        """Take note of the windows done."""
        if self._progress is not None:
            self._progress.update(self._tiles, completed=done, total=total)

    def end(self) -> None:
        """Count the image as done."""
        if self._progress is not None:
            self._progress.update(self._tiles, visible=False)
            self._progress.advance(self._images)


@contextmanager
def progress_bars(images: int) -> Iterator[Bars]:
    """Show the bars during the body."""
    if not sys.stderr.isatty():
        yield Bars(None, images)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as rich_progress:
        yield Bars(rich_progress, images)


def complain(message: str, kind: str = "error") -> None:
    """Print one line to stderr."""
    print(f"fluxsr: {kind}: {' '.join(message.split())}", file=sys.stderr)
