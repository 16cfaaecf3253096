"""Which file belongs to which: folders are matched by name, and whatever is missing, extra or of another size is an error."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fluxsr.data.images import IMAGE_SUFFIXES, list_images, read_size

# Endings that tell what a file is and not which: _HR, _LR4, _SR, x4, _x4, _out, in any number (img_001_SRF_4_HR).
_ENDING = re.compile(
    r"(?:[-_ ]|(?<=\d))(?:(?:HR|LR|SR|GT|LQ|HQ|SRF)(?:[-_]?\d)?|x\d|out|output|restored|bicubic)$", re.IGNORECASE
)
_LISTED = 8


class Matching(NamedTuple):
    """The files of a folder by the names of another, and by what they were matched."""

    files: dict[str, Path]
    how: str


def list_files(place: str | Path) -> dict[str, Path]:
    """Return the images of a folder (with subfolders) or of a pattern such as ``'Set5/*_HR.png'``, by name.

    Raises:
        ValueError: if there are none.
    """
    if glob.has_magic(str(place)) and not Path(place).is_dir():
        paths = [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
        found = {path.name: path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()}
        if not found:
            raise ValueError(f"no image fits the pattern {place}")
        return found
    return {path.relative_to(place).as_posix(): path for path in list_images(place)}


def match(names: Sequence[str], place: str | Path, title: str) -> Matching:
    """Find the one file in ``place`` that belongs to each name.

    Whole names without their format come first. If they don't all fit, endings such as ``_HR``, ``_LR4`` and ``x4`` are left
    off on both sides, as long as that is unambiguous.

    Args:
        names: of the images, as :func:`list_files` gives them.
        place: folder or pattern.
        title: of it, for messages.

    Raises:
        ValueError: naming the images that are missing, extra or ambiguous.
    """
    files = list_files(place)
    for how, key in (("same names", stem), ("names without their endings", core)):
        ours, theirs = [key(name) for name in names], [key(name) for name in files]
        if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
            paths = dict(zip(theirs, files.values(), strict=True))
            return Matching({name: paths[mine] for name, mine in zip(names, ours, strict=True)}, how)
    key = stem if any(stem(name) in map(stem, files) for name in names) else core
    problems = []
    for text, some, others in (("missing", names, files), ("extra", files, names)):
        there = {key(name) for name in others}
        left = [name for name in some if key(name) not in there]
        if left:
            problems.append(f"{text}: {listed(left)}")
    if not problems:
        doubles = [name for name in files if [core(other) for other in files].count(core(name)) > 1]
        problems.append(f"ambiguous: {listed(doubles or list(files))}")
    raise ValueError(
        f"{title}: {place} doesn't hold the same {len(names)} images as the benchmark; {'; '.join(problems)}. "
        "A mean over a part would not compare: complete or clean the folder, or give a pattern such as 'DIR/*_SR.png'"
    )


def stem(name: str) -> str:
    """Return a name without its format."""
    return str(Path(name).with_suffix("")) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def core(name: str) -> str:
    """Return a name without its format and the endings that tell what the file is."""
    name = stem(name)
    while (shorter := _ENDING.sub("", name)) not in (name, ""):
        name = shorter
    return name


def check_sizes(files: dict[str, Path], sizes: dict[str, tuple[int, int]], title: str) -> None:
    """Check, by the files' headers, that each image has the size (height, width) that it must have.

    Raises:
        ValueError: naming those that have not.
    """
    wrong = []
    for name, path in files.items():
        height, width = read_size(path)
        if (height, width) != sizes[name]:
            wrong.append(f"{name} ({width}x{height} instead of {sizes[name][1]}x{sizes[name][0]})")
    if wrong:
        raise ValueError(f"{title}: {len(wrong)} of {len(files)} images have another size: {listed(wrong)}")


def listed(names: Sequence[str]) -> str:
    """Return names in one line, the first few of many."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
