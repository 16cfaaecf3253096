"""Matches the pictures of folders by name; whatever is missing, extra or ambiguous is an error."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fluxsr.images.formats import is_picture_name
from fluxsr.images.listing import images_by_name, named
from fluxsr.images.read import read_size

# Endings that say what a file is and not which: _HR, _LR4, _SR, x4, _x4, _out, in any number (img_001_SRF_4_HR).
_MARK = re.compile(
    r"(?:[-_ ]?x\d|(?:[-_ ]|(?<=\d))(?:(?:HR|LR|SR|GT|LQ|HQ|SRF)(?:[-_]?\d+)?|out|output|restored|bicubic))$",
    re.IGNORECASE,
)


class Matching(NamedTuple):
    """The files of a folder by the names of another, and by what they were matched."""

    files: dict[str, Path]
    how: str


def match_names(names: Sequence[str], place: str | Path, title: str) -> Matching:
    """Find the one file in ``place`` that belongs to each name.

    Whole names come first, then names without their format, then those that a format was added to (``a.jpg.png`` for
    ``a.jpg``). If they don't all fit, endings such as ``_HR``, ``_LR4`` and ``x4`` are left off on both sides, as long as that
    is unambiguous.

    Args:
        names: Names of pictures, as :func:`images_by_name` gives them.
        place: Folder or pattern.
        title: Name of the place in messages.

    Raises:
        ValueError: Naming the pictures that are missing, extra or ambiguous.
    """
    files = images_by_name(place)
    for how, our_key, their_key in (
        ("same names", str, str),
        ("same names", stem, stem),
        ("same names", str, stem),
        ("names without their endings", core, core),
    ):
        ours, theirs = [our_key(name) for name in names], [their_key(name) for name in files]
        if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
            paths = dict(zip(theirs, files.values(), strict=True))
            return Matching({name: paths[mine] for name, mine in zip(names, ours, strict=True)}, how)
    key = stem if {stem(name) for name in names} & {stem(name) for name in files} else core
    problems = []
    for text, some, others in (("missing", names, files), ("extra", files, names)):
        there = {key(name) for name in others}
        left = [name for name in some if key(name) not in there]
        if left:
            problems.append(f"{text}: {named(left)}")
    if not problems:
        problems.append(f"ambiguous: {named(_doubles(files) or _doubles(names) or files)}")
    raise ValueError(
        f"{title}: {place} doesn't hold the {len(names)} images that belong to the others; {'; '.join(problems)}. "
        "Complete or clean the folder, or give a pattern such as 'DIR/*_SR.png'"
    )


def _doubles(names: Sequence[str] | Mapping[str, Path]) -> list[str]:
    counts = Counter(map(core, names))
    return [name for name in names if counts[core(name)] > 1]


def stem(name: str) -> str:
    """Return a name without its format, with its letters composed: macOS writes ``ü`` as two signs, others as one."""
    return unicodedata.normalize("NFC", str(Path(name).with_suffix("")) if is_picture_name(Path(name)) else name)


def core(name: str) -> str:
    """Return a name without its format and the endings that say what the file is."""
    name = stem(name)
    while (shorter := _MARK.sub("", name)) not in (name, "") and not shorter.endswith("/"):
        name = shorter
    return name


def check_sizes(files: Mapping[str, Path], sizes: Mapping[str, tuple[int, int]], title: str) -> None:
    """Check, by the files' headers, that each picture has its (height, width); a ValueError names those that have not."""
    wrong = []
    for name, path in files.items():
        height, width = read_size(path)
        if (height, width) != sizes[name]:
            wrong.append(f"{name} ({width}x{height} instead of {sizes[name][1]}x{sizes[name][0]})")
    if wrong:
        raise ValueError(f"{title}: {len(wrong)} of {len(files)} images have another size: {named(wrong)}")
