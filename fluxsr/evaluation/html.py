"""Writes pages of one file, with tables and pictures inside of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from torch import Tensor

from fluxsr.atomic import write_text
from fluxsr.images.convert import to_pil, to_pixels


def write_page(path: str | Path, title: str, body: str, folder: Path) -> None:
    """Write a page with the ``style.css`` and ``page.js`` of a folder inside; it loads nothing from anywhere."""
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    text = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{style}</style></head>
<body>{body}<script>{script}</script></body></html>
"""
    write_text(path, text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 2, sortable: str = "") -> str:
    """Return a table of cells that are HTML, whose first ``words`` columns hold words."""

    def line(cells: Sequence[str], tag: str) -> str:
        looks = [' class="text"' if number < words else "" for number in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{look}>{cell}</{tag}>' for look, cell in zip(looks, cells, strict=True))}</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    return f'<div class="scroll"><table{sortable}><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def encoded(picture: Tensor, kind: str = "PNG") -> bytes:
    """Return ``(3, H, W)`` in ``[0, 1]`` as the content of a file, ``PNG`` or ``JPEG``."""
    to_pil(to_pixels(picture, np.uint8)).save(buffer := io.BytesIO(), kind, quality=85)  # which PNG does not heed
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "PNG") -> str:
    """Return the content of such a file as what a page takes for its address."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
