"""Reads a function's signature and docstring from its source, and texts as the types of its parameters.

Importing what makes pairs or exports a model takes six seconds and more, and the words are in the file: a help page imports
no library.
"""

from __future__ import annotations

import ast
import re
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import fluxsr
from fluxsr.cli._support.messages import meant

_SEQUENCES = (Sequence, list, tuple)
# What the names in an annotation are; those that aren't here are aliases, or classes that no option can have.
_TYPES: dict[str, Any] = {one.__name__: one for one in (int, float, str, bool, Path, Mapping, *_SEQUENCES)}
_TYPES |= {"Callable": Callable, "Literal": Literal}


class Parameter(NamedTuple):
    """One parameter of a function."""

    name: str
    kinds: list[type]  # which of int, float, bool and str a value may be
    choices: list[Any]  # values of a Literal
    many: bool  # whether it takes a sequence of these
    optional: bool  # whether None is a value
    required: bool
    default: Any
    help: str  # what the docstring says of it

    def read(self, text: str) -> Any:
        """Return what a text means as the value, or as one of a sequence."""
        if self.optional and (text == "null" or (text == "off" and str not in self.kinds)):
            return None
        for choice in self.choices:
            if text == str(choice):
                return choice
        for kind in self.kinds:
            with suppress(ValueError, KeyError):
                return _READERS[kind](text)
        known = list(map(str, self.choices))
        words = [f"one of {', '.join(known)}"] * bool(known) + [_WORDS[kind] for kind in self.kinds]
        raise ValueError(f"must be {' or '.join(words)}, got {text!r}{meant(text, known)}")


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


def commas(text: str) -> list[str]:
    """Read names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("names none")
    return names


def width_and_height(text: str) -> tuple[int, int]:
    """Read ``WxH`` into (height, width)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"must be WIDTHxHEIGHT in pixels, for example 3840x2160, got {text!r}")
    return int(parts[1]), int(parts[0])


def _whole(text: str) -> int:
    with suppress(ValueError):
        return int(text)
    if not float(text).is_integer():  # 2e8 is a whole number
        raise ValueError
    return int(float(text))


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_READERS: dict[type, Callable[[str], Any]] = {
    int: _whole,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    str: str,
}
