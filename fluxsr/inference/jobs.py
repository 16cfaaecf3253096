"""Lists the files that a batch will upscale, names each result, and says what is left out."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_LONGEST_NAME = 255  # bytes, of nearly all disks


class Job(NamedTuple):
    """One file to upscale."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """The work of a batch."""

    jobs: list[Job]
    problems: list[str]  # errors of single inputs
    left_out: list[str]  # files in a folder that the batch does not take, one line for each folder


def plan_files(inputs: Sequence[str], output: str | Path, suffix: str = "", kind: str | None = None) -> Plan:
    """Return what to do.

    A file that is named twice is done once. Results of an earlier run are left out. They are files that this call would make of
    another of its inputs, and what lies in an output folder inside of an input folder.
    """
    from fluxsr.images.formats import FORMATS
    from fluxsr.images.listing import expand_pattern

    if any(letter in suffix for letter in ("/", os.sep, "\0")):
        raise ValueError(f"the suffix is a part of a name, and can't be {suffix!r}")
    to_file = _names_a_file(output, suffix, kind)
    folder = Path(output)
    problems: list[str] = []
    left_out: list[str] = []
    found: dict[str, tuple[Path, Path]] = {}  # by its place: the file, and its path below the output folder
    for entry in inputs:
        paths = [Path(entry)]
        if not os.path.exists(entry) and glob.has_magic(entry):
            paths = expand_pattern(entry)
            if not paths:
                problems.append(f"{entry} matches no file")
        for path in paths:
            if os.path.isdir(path):
                images, told, wrong = _images_in(path, folder)
                problems += wrong
                left_out += told
                inside = [(image, image.relative_to(path)) for image in images]
            else:
                inside = [(path, Path(path.name))]
            for source, name in inside:
                found.setdefault(os.path.abspath(source), (source, name))
    if to_file and (len(found) > 1 or any(os.path.isdir(entry) for entry in inputs)):
        raise ValueError(f"{output} names one file, and there are {len(found)} images: give a folder after -o")
    targets = {}
    for place, (source, name) in found.items():
        known = FORMATS.get(source.suffix.lower())
        ending = f".{kind}" if kind else source.suffix if known is not None and known.written else ".png"
        targets[place] = folder if to_file else folder / name.with_name(f"{name.stem}{suffix}{ending}")
    made = {os.path.abspath(target): place for place, target in targets.items() if os.path.abspath(target) != place}
    results = [str(found[place][0]) for place in targets if place in made]
    if results:
        left_out.append(_line("results of an earlier run", results))
    jobs: dict[Path, Job] = {}
    for place, target in targets.items():
        source = found[place][0]
        if place in made:
            continue
        if len(os.fsencode(target.name)) > _LONGEST_NAME:
            problems.append(f"{source}: the result's name would be too long: {target.name}")
        elif target in jobs:
            problems.append(f"{source} and {jobs[target].source} would both become {target}: upscale them apart")
        else:
            jobs[target] = Job(source, target)
    return Plan(list(jobs.values()), problems, left_out)


def _names_a_file(output: str | Path, suffix: str, kind: str | None) -> bool:
    """Whether ``output`` is a file's name, and not a folder's."""
    from fluxsr.images.formats import FORMATS, WRITTEN

    text, path = os.fspath(output), Path(output)
    endings = ", ".join(WRITTEN)
    if text == "-":
        raise ValueError("results are files and can't go to stdout: give a file or a folder after -o")
    if path.is_dir() or text.endswith(("/", os.sep)):
        return False
    ending = path.suffix.lower()
    if not ending:
        if path.exists():
            raise ValueError(f"{output} is a file: give a folder after -o, or a name that ends in {endings}")
        return False
    if ending not in WRITTEN:
        what = f"{FORMATS[ending].name} is only read" if ending in FORMATS else f"{ending} is no format that is written"
        raise ValueError(f"{output}: {what}; give a name that ends in {endings}, or {text}/ for a folder")
    if kind is not None and FORMATS[f".{kind}"] != FORMATS[ending]:
        raise ValueError(f"{output} and the format {kind} contradict each other: give one of them")
    if suffix:
        raise ValueError(f"{output} is the result's whole name, to which no suffix ({suffix}) is added: give a folder")
    return True


def _images_in(folder: Path, output: Path) -> tuple[list[Path], list[str], list[str]]:
    """Return the images in a folder, without the results of an earlier run, what is left out, and what is wrong with it."""
    from fluxsr.images.listing import no_images, survey

    found = survey(folder)
    images, left_out = found.images, found.left_out
    earlier: list[Path] = []
    results, place = output.resolve(), folder.resolve()
    if results != place and results.is_relative_to(place):
        below = folder / results.relative_to(place)
        left_out = [name for name in left_out if not (folder / name).is_relative_to(below)]
    if not place.is_relative_to(results):
        # A link may lead to them, too.
        of_results = {inner: inner.resolve().is_relative_to(results) for inner in {image.parent for image in images}}
        earlier = [image for image in images if of_results[image.parent]]
        images = [image for image in images if not of_results[image.parent]]
    problems = list(found.unreadable)
    if not found.images and not problems:
        problems.append(no_images(folder))
    told = [_line(f"of {folder}", left_out)] if left_out else []
    told += [_line("results of an earlier run", [str(image) for image in earlier])] if earlier else []
    return images, told, problems


def _line(what: str, names: Sequence[str]) -> str:
    from fluxsr.images.listing import named

    return f"left out, {what}: {len(names)} ({named(names)})"


def writable(jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """Return the jobs whose folder can be written, and a line for each that can't.

    Known before the work: a file without a name is made and gone.
    """
    told: dict[Path, str] = {}
    for folder in {job.target.parent for job in jobs}:
        there = folder
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            told[folder] = error.strerror or str(error)
    if not told:
        return list(jobs), []
    good = [job for job in jobs if job.target.parent not in told]
    lines = [
        f"can't write into {folder}: {reason}; {sum(job.target.parent == folder for job in jobs)} pictures are not upscaled"
        for folder, reason in sorted(told.items())
    ]
    if not good:
        raise ValueError("; ".join(lines))
    return good, lines
