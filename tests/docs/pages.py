"""What the tests of the documentation read: pages, their code blocks, links and anchors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
# What a page includes stands in a fence "``` { .python }": formatters leave that one alone, they would break the marker.
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'--8<-- "([^"]+)"')


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text."""

    page: str
    number: int
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Return the fenced blocks of all pages in these languages."""
    return [
        Block(page.relative_to(ROOT).as_posix(), number, match[1], match[2])
        for page in PAGES
        for number, match in enumerate(FENCE.finditer(page.read_text("utf-8")))
        if match[1] in languages
    ]


def prose(page: Path) -> str:
    """Return a page without its code, with what it includes."""
    text = SNIPPET.sub(lambda match: (ROOT / match[1]).read_text("utf-8"), FENCE.sub("", page.read_text("utf-8")))
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings get, as MkDocs and code hosts make them."""
    text = SNIPPET.sub(
        lambda match: (ROOT / match[1]).read_text("utf-8") if match[1].endswith(".md") else "",
        page.read_text("utf-8"),
    )
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
