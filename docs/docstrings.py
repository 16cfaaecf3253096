"""Griffe extension: the docstrings' plain style, as Markdown that the site renders.

Four things of reStructuredText are used in docstrings because editors and ``help()`` show them well: roles
(``:class:`X```), literal blocks announced by a double colon, lists of names without blank line, and ``Example:`` with a
doctest. Markdown knows none of them, so they are translated here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
LITERAL = re.compile(r"::[ ]*$", re.MULTILINE)
EXAMPLE = re.compile(r"^(\s*)Example:(?=\s*\n\s*>>>)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when its module has been read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            return
        text = ROLE.sub(lambda match: link(match[1], obj), obj.docstring.value)
        text = LITERAL.sub(":", text)
        obj.docstring.value = EXAMPLE.sub(r"\1Examples:", text)


def link(name: str, obj: griffe.Object) -> str:
    """Return code that links to the API page of ``name`` where there is one; ``optional`` never warns."""
    target = name if name.startswith("fluxsr.") else resolve(name, obj)
    return f'<autoref optional identifier="{target}"><code>{name}</code></autoref>'


def resolve(name: str, obj: griffe.Object) -> str:
    """Return the full path of a name as its docstring means it: a member of the class, else a name of the module."""
    owner: Any = obj if obj.is_class else obj.parent
    if owner is not None and owner.is_class and "." not in name and name in owner.members:
        return f"{owner.path}.{name}"
    try:
        return obj.resolve(name.split(".")[0]) + "".join(f".{part}" for part in name.split(".")[1:])
    except griffe.NameResolutionError:
        return name
