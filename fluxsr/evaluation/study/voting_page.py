"""Writes the page of a blind comparison: two pictures side by side, without their systems' names, and a vote."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fluxsr.atomic import replacing, write_text
from fluxsr.evaluation.html import data_uri, encoded, write_page
from fluxsr.evaluation.imresize import imresize
from fluxsr.evaluation.names import folders_by_name
from fluxsr.evaluation.study.votes import FORMAT, SANITY
from fluxsr.images import check_sizes, images_by_name, match_names, read_image, read_size

# A page of more is slow to open, and too large for a mail.
INLINE_BYTES = 40_000_000
# The damaged copy of a sanity pair has lost all detail below so many pixels.
_DAMAGE = 8
_FOLDER = Path(__file__).parent


class StudyFiles(NamedTuple):
    """The files that were written.

    Attributes:
        page: The page, for the people who vote.
        key: The systems' codes, only for the person who merges the votes.
        pictures: Folder with the pictures, which belongs to the page; ``None`` if the page contains them.
    """

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
    files = _matched(systems)
    sources = match_names(list(files[0]), inputs, "inputs").files if inputs is not None else {}
    salt = secrets.token_hex(8) if seed is None else f"{seed:016x}"

    def code(*parts: object) -> str:
        return hashlib.sha256("\n".join([salt, *map(str, parts)]).encode()).hexdigest()[:12]

    codes = [code("system", name) for name in systems]
    known = {"format": FORMAT, "study": code("study", *systems, *files[0])}
    store = _Store(output.with_name(f"{output.stem}_{known['study']}"), inline)
    images, trials = [], []
    for number, name in enumerate(files[0]):
        pictures = dict(zip(codes, [read_image(matched[name]) for matched in files], strict=True))
        height, width = pictures[codes[0]].shape[-2:]
        if number < sanity:
            pictures[SANITY] = damaged(pictures[codes[0]])
            trials.append([number, codes[0], SANITY])
        trials += [[number, *pair] for pair in combinations(codes, 2)]
        places = {system: store.keep(code("picture", system, name), one) for system, one in pictures.items()}
        entry: dict[str, Any] = {"width": width, "height": height, "pictures": places}
        if sources:
            enlarged = imresize(read_image(sources[name])[None], (height, width))[0]
            entry["input"] = store.keep(code("picture", "input", name), enlarged)
        images.append(entry)
    for entry in images:
        entry["pictures"] = {system: store.source(name) for system, name in entry["pictures"].items()}
        entry |= {"input": store.source(entry["input"])} if sources else {}
    page = {**known, "title": title, "question": question, "votes": votes, "images": images, "trials": trials}
    data = json.dumps(page).replace("<", "\\u003c")  # a title could end the script, or begin a comment in it
    body = (_FOLDER / "body.html").read_text(encoding="utf-8")
    write_page(output, title, f'{body}<script type="application/json" id="study">{data}</script>', _FOLDER)
    key = output.with_suffix(".key.json")
    names = {"systems": dict(zip(codes, systems, strict=True)), "images": list(files[0])}
    write_text(key, json.dumps({**known, **names}, indent=1) + "\n")
    return StudyFiles(output, key, store.folder if store.inline is False else None)


def damaged(picture: Tensor) -> Tensor:
    """Return a picture ``(3, H, W)`` that has lost its details, which nobody who looks can miss."""
    height, width = picture.shape[-2:]
    small = imresize(picture[None], (max(1, height // _DAMAGE), max(1, width // _DAMAGE)))
    return imresize(small, (height, width))[0]


def _matched(systems: Mapping[str, str | Path]) -> list[dict[str, Path]]:
    """Return the files of each system by the first one's names."""
    first_name, first = next(iter(systems.items()))
    names = list(images_by_name(first))
    files = [match_names(names, place, name).files for name, place in systems.items()]
    sizes = {name: read_size(path) for name, path in files[0].items()}
    for name, matched in zip(systems, files, strict=True):
        check_sizes(matched, sizes, f"{name}, beside {first_name}")
    return files


class _Store:
    """The pictures as PNG: each is written into a folder beside the page, or held until the page takes them in."""

    def __init__(self, folder: Path, inline: bool | None) -> None:
        self.folder = folder
        self.inline = inline
        self.held: dict[str, bytes] = {}

    def keep(self, name: str, picture: Tensor) -> str:
        self.held[name] = encoded(picture)
        if self.inline is None and sum(map(len, self.held.values())) > INLINE_BYTES:
            self.inline = False
        if self.inline is False:
            for one, content in self.held.items():
                with replacing(self.folder / f"{one}.png") as temporary:
                    temporary.write_bytes(content)
            self.held.clear()
        return name

    def source(self, name: str) -> str:
        if self.inline is False:
            return f"{self.folder.name}/{name}.png"
        return data_uri(self.held[name])
