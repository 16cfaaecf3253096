"""Writes the page of a blind comparison: two pictures side by side, without their systems' names, and a vote."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from torch import Tensor

from fluxsr.atomic import write_text
from fluxsr.evaluation.comparison import folders_by_name
from fluxsr.evaluation.html import data_uri, encoded, write_page
from fluxsr.evaluation.study.scores import FORMAT, SANITY
from fluxsr.images import check_sizes, images_by_name, match_names, read_image, read_size
from fluxsr.images.resize import imresize

# A page of more is slow to open, and too large for a mail.
INLINE_BYTES = 40_000_000
# The damaged copy of a sanity pair has lost all detail below so many pixels.
_DAMAGE = 8
_FOLDER = Path(__file__).parent


class StudyFiles(NamedTuple):
    """The page for the people who vote, the key only for who merges the votes, the page's pictures unless they are inside."""

    page: Path
    key: Path
    pictures: Path | None


def write_study(
    systems: Sequence[str] | Mapping[str, str | Path],
    output: str | Path,
    *,
    inputs: str | Path | None = None,
    votes: int | None = None,
    sanity: int = 2,
    inline: bool | None = None,
    title: str = "Picture comparison",
    question: str = "Which picture looks better?",
    seed: int | None = None,
) -> StudyFiles:
    """Write a page on which people compare the pictures of systems, two at a time and without knowing whose they see.

    Each person sees the pairs in an order and on sides of their own. Votes are kept in the browser and saved as a file, which
    :func:`fluxsr.evaluation.study.merge_votes` takes. The page needs no server and no network.

    Args:
        systems: Folders or patterns of pictures by the systems' names, or texts ``NAME=DIR``, at least two. They are
            matched by file name, and must be complete and of one size for each image.
        output: The page, ending in ``.html``. The key is written beside it, ending in ``.key.json``.
        inputs: Folder of the images that the pictures were made from; people can then look at these, too.
        votes: Number of pairs that each person is shown, all pairs of systems equally often; ``None``: all of them.
        sanity: Number of extra pairs that show a picture beside a damaged copy of itself.
        inline: Whether the pictures are inside the page or in a folder beside it; ``None``: inside up to 40 MB.
        title: The page's heading.
        question: Question that people are asked.
        seed: Seed of the codes that stand for the systems; ``None``: a new one each time.

    Raises:
        ValueError: If there are fewer than two systems, a folder doesn't fit the others, or an argument is out of range.
    """
    output = Path(output)
    if not isinstance(systems, Mapping):
        systems = folders_by_name(systems, "a system is given as")
    if len(systems) < 2:
        raise ValueError(f"a comparison needs two systems or more, got {', '.join(systems) or 'none'}")
    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"the page's name must end in .html, got {output}")
    if sanity < 0 or (votes is not None and votes < 1):
        raise ValueError(f"votes must be at least 1 and sanity 0 or more, got {votes} and {sanity}")
    names = list(images_by_name(next(iter(systems.values()))))
    files = [match_names(names, place, name).files for name, place in systems.items()]
    sizes = {name: read_size(path) for name, path in files[0].items()}
    for system, matched in zip(systems, files, strict=True):
        check_sizes(matched, sizes, f"{system}, beside {next(iter(systems))}")
    sources = match_names(names, inputs, "inputs").files if inputs is not None else {}
    salt = secrets.token_hex(8) if seed is None else f"{seed:016x}"

    def code(*parts: object) -> str:
        return hashlib.sha256("\n".join([salt, *map(str, parts)]).encode()).hexdigest()[:12]

    codes = [code("system", name) for name in systems]
    known = {"format": FORMAT, "study": code("study", *systems, *names)}
    folder = output.with_name(f"{output.stem}_{known['study']}")
    total = 0

    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the page until it is known whether they go into it; gone if anything fails.
    with TemporaryDirectory(dir=output.parent, prefix=f".{folder.name}.") as temporary:
        scratch = Path(temporary)

        def keep(picture: Tensor, *parts: str) -> Path:
            nonlocal total
            path, content = scratch / f"{code('picture', *parts)}.png", encoded(picture)
            total += len(content)
            path.write_bytes(content)
            return path

        images, trials = [], []
        for number, name in enumerate(names):
            pictures = dict(zip(codes, [read_image(matched[name]) for matched in files], strict=True))
            height, width = pictures[codes[0]].shape[-2:]
            if number < sanity:
                pictures[SANITY] = damaged(pictures[codes[0]])
                trials.append([number, codes[0], SANITY])
            trials += [[number, *pair] for pair in combinations(codes, 2)]
            entry: dict[str, Any] = {"width": width, "height": height}
            entry["pictures"] = {system: keep(one, system, name) for system, one in pictures.items()}
            if sources:
                enlarged = imresize(read_image(sources[name])[None], (height, width))[0]
                entry["input"] = keep(enlarged, "input", name)
            images.append(entry)
        inside = total <= INLINE_BYTES if inline is None else inline

        def source(path: Path) -> str:
            return data_uri(path.read_bytes()) if inside else f"{folder.name}/{path.name}"

        page = {**known, "title": title, "question": question, "votes": votes, "images": images, "trials": trials}
        # A title could end the script, or begin a comment in it.
        data = json.dumps(page, default=source).replace("<", "\\u003c")
        body = (_FOLDER / "body.html").read_text(encoding="utf-8")
        write_page(output, title, f'{body}<script type="application/json" id="study">{data}</script>', _FOLDER)
        key = output.with_suffix(".key.json")
        secret = {"systems": dict(zip(codes, systems, strict=True)), "images": names}
        write_text(key, json.dumps({**known, **secret}, indent=1) + "\n")
        if not inside:
            folder.mkdir(exist_ok=True)
            for picture in scratch.iterdir():
                picture.replace(folder / picture.name)
    return StudyFiles(output, key, None if inside else folder)


def damaged(picture: Tensor) -> Tensor:
    """Return a picture ``(3, H, W)`` that has lost its details, which nobody who looks can miss."""
    height, width = picture.shape[-2:]
    small = imresize(picture[None], (max(1, height // _DAMAGE), max(1, width // _DAMAGE)))
    return imresize(small, (height, width))[0]
