"""Reads a function's signature and docstring from its source, so that a help page imports no library.

Importing what makes pairs or exports a model takes six seconds and more, and the words are in the file.
"""

from __future__ import annotations

import ast
import re
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import fluxsr

_SEQUENCES = (Sequence, list, tuple)
# What the names in an annotation are; those that aren't here are aliases, or classes that no option can have.
_TYPES: dict[str, Any] = {one.__name__: one for one in (int, float, str, bool, Path, Mapping, *_SEQUENCES)}
_TYPES |= {"Callable": Callable, "Literal": Literal}


class Parameter(NamedTuple):
    """One parameter of a function.

    Attributes:
        name: Its name.
        kinds: Which of ``int``, ``float``, ``bool`` and ``str`` a value may be.
        choices: Values of a ``Literal``.
        many: Whether it takes a sequence of these.
        optional: Whether ``None`` is a value.
        required: Whether it has no default.
        default: Its default.
        help: What the docstring says of it.
    """

    name: str
    kinds: list[type]
    choices: list[Any]
    many: bool
    optional: bool
    required: bool
    default: Any
    help: str


def import_function(path: str) -> Any:
    """Return the function that ``package.module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def read_signature(path: str) -> tuple[str, dict[str, Parameter]]:
    """Return what a function's docstring says first, and its parameters; ``package.module:name`` isn't imported."""
    module, _, name = path.partition(":")
    node: Any = _parse(module)
    for part in name.split("."):
        node = next(one for one in node.body if getattr(one, "name", None) == part)
    what, words = split_docstring(ast.get_docstring(node) or "")
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(plain) - len(node.args.defaults)) + node.args.defaults + node.args.kw_defaults
    found = {}
    for argument, default in zip([*plain, *node.args.kwonlyargs], defaults, strict=True):
        if argument.annotation is None:  # self, cls
            continue
        hint = _type(argument.annotation, module)
        members = _members(hint)
        sequences = [one for one in members if get_origin(one) in _SEQUENCES]
        values = [*members, *(each for one in sequences for each in _members(get_args(one)[0]))]
        kinds = [str if one is Path else one for one in values if one in (int, float, bool, str, Path)]
        choices = [choice for one in values if get_origin(one) is Literal for choice in get_args(one)]
        value = ast.literal_eval(default) if default is not None and (kinds or choices) else None
        found[argument.arg] = Parameter(
            argument.arg,
            kinds=list(dict.fromkeys(kinds)),
            choices=choices,
            many=bool(sequences),
            optional=type(None) in members,
            required=default is None,
            default=value,
            help=words.get(argument.arg, ""),
        )
    return what, found


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says first, and its arguments by name; both without the marks of Sphinx."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "")
    what, _, rest = text.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    entries = re.split(r"^(\*{0,2}\w+): ", textwrap.dedent(section), flags=re.MULTILINE)[1:]
    words = {name: " ".join(said.split()) for name, said in zip(entries[::2], entries[1::2], strict=True)}
    return re.split(r"\n(?:Raises|Returns|Yields|Example):\n", what)[0].strip(), words


def _members(hint: Any) -> Sequence[Any]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _type(node: ast.expr, module: str) -> Any:
    """Return the type that an annotation of a module means, as :func:`typing.get_type_hints` does for imported ones."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    try:
        return eval(ast.unparse(node), {name: _named(name, module) for name in names})
    except (TypeError, AttributeError):  # of a class that no option can have
        return Any


def _named(name: str, module: str) -> Any:
    if name in _TYPES:
        return _TYPES[name]
    for one in _parse(module).body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == name:
            return _type(one.value, module)
        if isinstance(one, ast.ImportFrom) and name in [alias.name for alias in one.names]:
            return _named(name, str(one.module)) if str(one.module).startswith("fluxsr.") else Any
    return Any


@cache
def _parse(module: str) -> ast.Module:
    path = Path(fluxsr.__file__).parent.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text("utf-8"))
