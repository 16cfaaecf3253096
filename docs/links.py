"""MkDocs hook: links that lead out of docs/ (right on a code host) lead to pages of the site here."""

from __future__ import annotations

import re
from typing import Any

EXAMPLE = re.compile(r"\]\(\.\./examples/(?:[\w/]*/)?(\w+)\.(?:py|yaml)\)")


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Send links to an example's file to its section of the examples' page."""
    return EXAMPLE.sub(lambda match: f"](examples.md#{match[1]})", markdown)
