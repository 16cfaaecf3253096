"""Reads a function's signature and docstring from its source, so that a help page imports no library.

Importing what makes pairs or exports a model takes six seconds and more, and the words are in the file.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import fluxsr

_SIMPLE = {"int": int, "float": float, "str": str, "bool": bool, "Path": str}
_LISTS = ("Sequence", "list", "tuple")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function, as an option needs it.

    Attributes:
        name: Its name in Python.
        kinds: Types that a value may have, of ``int``, ``float``, ``str`` and ``bool``.
        choices: Values of a ``Literal``.
        many: Whether it takes a sequence of these.
        optional: Whether ``None`` is a value.
        required: Whether it has no default.
        default: Its default.
        help: What the docstring says of it.
    """

    name: str
    kinds: tuple[type, ...] = (str,)
    choices: tuple[Any, ...] = ()
    many: bool = False
    optional: bool = False
    required: bool = False
    default: Any = None
    help: str = ""


@dataclass(frozen=True)
class Signature:
    """What a docstring says before its arguments, and the parameters."""

    what: str
    parameters: dict[str, Parameter]


def import_function(path: str) -> Any:
    """Return the function that ``package.module:name`` names."""
    module, _, name = path.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def read_signature(path: str) -> Signature:
    """Return the signature of the function at ``package.module:name``; its module isn't imported."""
    module, _, name = path.partition(":")
    node: Any = _parse(module)
    for part in name.split("."):
        node = next(one for one in node.body if getattr(one, "name", None) == part)
    what, words = split_docstring(ast.get_docstring(node) or "")
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(plain) - len(arguments.defaults))
    pairs = [*zip(plain, [*missing, *arguments.defaults], strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = {}
    for argument, default in pairs:
        if argument.arg in ("self", "cls") or not (hint := _read_hint(argument.annotation, module)):
            continue
        value = None if default is None else ast.literal_eval(default)
        found[argument.arg] = Parameter(
            argument.arg, required=default is None, default=value, help=words.get(argument.arg, ""), **hint
        )
    return Signature(what, found)


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says first, and its arguments by name; both without the marks of Sphinx."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", inspect.cleandoc(text)).replace("``", "")
    what, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    entries = re.split(r"^(\*{0,2}\w+): ", textwrap.dedent(section), flags=re.MULTILINE)[1:]
    words = {name: " ".join(said.split()) for name, said in zip(entries[::2], entries[1::2], strict=True)}
    return re.split(r"\n(?:Raises|Returns|Yields|Example):\n", what)[0].strip(), words


def _read_hint(node: ast.expr | None, module: str) -> dict[str, Any]:
    """Return kinds, choices, many and optional of an annotation; nothing where no option can have such a value."""
    kinds: list[type] = []
    choices: list[Any] = []
    many = optional = False
    for one in _members(node, module):
        name = ast.unparse(one.value) if isinstance(one, ast.Subscript) else ast.unparse(one)
        if name == "None":
            optional = True
        elif name in _SIMPLE:
            kinds.append(_SIMPLE[name])
        elif name == "Literal" and isinstance(one, ast.Subscript):
            choices += one.slice.elts if isinstance(one.slice, ast.Tuple) else [one.slice]
        elif name in _LISTS and isinstance(one, ast.Subscript):
            inner = _read_hint(one.slice.elts[0] if isinstance(one.slice, ast.Tuple) else one.slice, module)
            if not inner:
                return {}
            many = True
            kinds += inner["kinds"]
            choices += inner["choices"]
        elif name == "Mapping" and (kinds or many):
            continue  # what a Python caller may give instead of a sequence
        else:
            return {}
    values = tuple(ast.literal_eval(one) if isinstance(one, ast.expr) else one for one in choices)
    return {"kinds": tuple(kinds), "choices": values, "many": many, "optional": optional}


def _members(node: ast.expr | None, module: str) -> list[ast.expr]:
    """Return the members of a union, with names of types (``DType``) replaced by what they stand for."""
    if isinstance(node, ast.BinOp):
        return [*_members(node.left, module), *_members(node.right, module)]
    if isinstance(node, ast.Name) and (alias := _find_alias(node.id, module)) is not None:
        return _members(*alias)
    return [] if node is None else [node]


def _find_alias(name: str, module: str) -> tuple[ast.expr, str] | None:
    for one in _parse(module).body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == name:
            return one.value, module
        if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("fluxsr."):
            original = next((alias.name for alias in one.names if name in (alias.asname, alias.name)), None)
            if original is not None:
                return _find_alias(original, str(one.module))
    return None


@cache
def _parse(module: str) -> ast.Module:
    path = Path(fluxsr.__file__).parent.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text("utf-8"))
