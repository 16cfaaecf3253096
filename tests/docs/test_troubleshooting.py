"""Every message that the troubleshooting page quotes is one that the library can say."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.docs.pages import DOCS, ROOT

GAP = "…"


@cache
def strings() -> list[str]:
    """Return every string of the library's code, joined as Python joins them, a gap for what is filled in."""
    found = []
    for path in (ROOT / "fluxsr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else GAP for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted() -> list[str]:
    """Return the messages on the page."""
    return re.findall(r"^\*\*`(.+)`\*\*$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)


def said(message: str) -> bool:
    """Whether one string of the code holds the fixed parts of a message in their order."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.split(GAP)), re.DOTALL)
    return any(pattern.search(text) for text in strings())


def test_every_quoted_message_is_in_the_code():
    messages = quoted()
    assert len(messages) >= 25
    assert len(set(messages)) == len(messages)
    assert not [message for message in messages if not said(message)]


def test_a_message_that_nobody_says_is_found():
    assert not said("the moon must be … made of cheese, got …")
    assert not said("give data.photos … nothing to train on")  # the parts in another order
