"""Every block of code on the pages, and every one in a docstring, parses in its language."""

from __future__ import annotations

import ast
import doctest
import json
import re
import shlex
import textwrap
from typing import NamedTuple

import pytest
import yaml

from tests.docs.pages import ROOT, SNIPPET, Block, blocks

LITERAL = re.compile(r"^( *)(\S.*)?::[ ]*\n((?:[ ]*\n)+)((?:\1[ ]+\S.*\n?|[ ]*\n)+)", re.MULTILINE)
# What only Python has at the start of a line, and no formula, table or sketch of a layout.
PYTHON = re.compile(
    r"^\s*(for .+ in .+:|with .+:|def .+\(|class \w+.*:|return .+|from \S+ import|import \w+|\w{3,} = [\w.]+\((\S.*)?$)",
    re.MULTILINE,
)


class Code(NamedTuple):
    """A piece of code in a docstring."""

    place: str
    text: str


def check_shell(text: str) -> None:
    """Fail where a shell would: an open quote, a backslash that continues nothing."""
    joined = re.sub(r"\\\n\s*", " ", text)
    assert not joined.rstrip().endswith("\\")
    for line in joined.splitlines():
        shlex.split(line, comments=True)


CHECKS = {
    "python": ast.parse,
    "yaml": yaml.safe_load,
    "json": json.loads,
    "bash": check_shell,
    "sh": check_shell,
}
ON_PAGES = [block for block in blocks(*CHECKS) if not SNIPPET.search(block.text)]


def in_docstrings(text: str, place: str) -> list[Code]:
    """Return the doctests of a module's docstrings, and those of their literal blocks that are Python."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for node in ast.walk(ast.parse(text)):
        docstring = ast.get_docstring(node) if isinstance(node, kinds) else None
        if not docstring:
            continue
        where = f"{place}:{getattr(node, 'name', '')}"
        found += [Code(where, example.source) for example in doctest.DocTestParser().get_examples(docstring)]
        found += [
            Code(where, textwrap.dedent(match[4]))
            for match in LITERAL.finditer(docstring)
            if PYTHON.search(match[4]) and "->" not in match[4]
        ]
        # A block without the double colon would be run together by a formatter: it must not be there at all.
        usage = re.search(r"^(Usage|Example):[ ]*\n((?: +.*\n?)+)", docstring, re.MULTILINE)
        if usage and ">>>" not in usage[2] and PYTHON.search(usage[2]):
            found.append(Code(where, textwrap.dedent(usage[2])))
    return found


IN_DOCSTRINGS = [
    code
    for folder in ("fluxsr", "comfyui", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    for code in in_docstrings(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
]


@pytest.mark.parametrize("block", ON_PAGES, ids=lambda block: f"{block.page}-{block.number}")
def test_a_block_on_a_page_parses(block: Block):
    CHECKS[block.language](block.text)


@pytest.mark.parametrize("code", IN_DOCSTRINGS, ids=lambda code: code.place)
def test_a_block_in_a_docstring_parses(code: Code):
    ast.parse(code.text)


def test_every_fence_names_a_language_that_is_checked_or_none():
    pages = {block.language for block in blocks("python", "yaml", "json", "bash", "sh", "", "text", "toml", "bibtex")}
    assert pages - {"", "text", "toml", "bibtex"} <= set(CHECKS)
    assert len(ON_PAGES) >= 60
    assert any("create_or_resume" in code.text for code in IN_DOCSTRINGS), "the pair store's usage is not seen"


def test_broken_code_is_found():
    broken = '"""Stores.\n\nUsage::\n\n    store = make(\n        1) for x in store:\n        pass\n"""\n'
    [code] = in_docstrings(broken, "broken.py")
    with pytest.raises(SyntaxError):
        ast.parse(code.text)
    [example] = in_docstrings('"""One.\n\nExample:\n    >>> f(\n"""\n', "example.py")
    with pytest.raises(SyntaxError):
        ast.parse(example.text)
    with pytest.raises(ValueError, match="quotation"):
        check_shell("fluxsr upscale 'photo.jpg\n")
    with pytest.raises(yaml.YAMLError):
        CHECKS["yaml"]("a: [1\n")
