"""Checks a configuration against the signatures of its classes, so that an error names the key and the cause.

jsonargparse's own errors name every type that was tried and the whole value, a thousand characters for a wrong number in a
loss, and no file. What isn't understood here (a type that is neither a number, a text, a choice nor a class) is left to it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from inspect import isclass
from typing import Any, Literal, Union, get_args, get_origin

from fluxsr.cli._support import renamed
from fluxsr.cli._support.class_arguments import class_arguments, class_named
from fluxsr.cli._support.messages import UsageError, nearest
from fluxsr.cli._support.values import WORDS, as_kind

# Says where a key was set: the option as typed, or the file and the key.
Place = Callable[[str], str]
_LISTS = (list, tuple, Sequence)


def check_arguments(function: Any, given: Mapping[str, Any], key: str, place: Place, lacking: bool = True) -> None:
    """Refuse arguments that a class or function doesn't take, and values that it can't have.

    Args:
        function: The class or function.
        given: Its arguments in the configuration.
        key: Their place there, with dots.
        place: Says where a key was set.
        lacking: Whether all arguments without default must be given.

    Raises:
        UsageError: For the first mistake.
    """
    parameters, hints, whole = class_arguments(function)
    for name, value in given.items():
        here = f"{key}.{name}"
        if name in parameters:
            check_value(hints.get(name), value, here, place)
        elif new := renamed.successor(function, name):
            raise UsageError(f"{_called(function)} has it under another name now", place(here), new)
        elif whole:
            raise UsageError(f"{_called(function)} has no option {name!r}", place(here), nearest(name, parameters))
    missing = [f"{key}.{name}" for name, required in parameters.items() if required and name not in given]
    if lacking and missing:
        plain = [name.replace(".init_args", "") for name in missing]
        raise UsageError(f"the configuration lacks {', '.join(plain)}: write that into it, or give --{plain[0]}")


def check_value(hint: Any, value: Any, key: str, place: Place) -> None:
    """Refuse a value that its type can't have; what a type means that isn't understood here is left to the parser.

    Raises:
        UsageError: For the first mistake.
    """
    if hint is None or (isinstance(value, str) and "${" in value):
        return
    members = _members(hint)
    named = isinstance(value, Mapping) and "class_path" in value
    dotted = isinstance(value, str) and "." in value and all(map(str.isidentifier, value.split(".")))  # and no number
    if named or (dotted and str not in members and any(map(_is_class, members))):
        path = value["class_path"] if isinstance(value, Mapping) else value
        made = any(
            get_origin(one) is Callable or getattr(get_origin(one), "__name__", "") == "Callable" for one in members
        )
        check_class(str(path), (value.get("init_args") or {}) if named else {}, key, place, lacking=not made)
        return
    if isinstance(value, Mapping):
        for one in members:
            if get_origin(one) in (dict, Mapping):
                for name, inner in value.items():
                    check_value(get_args(one)[1], inner, f"{key}.{name}", place)
                return
            if is_dataclass(one):  # whose class need not be named
                check_arguments(one, value, key, place, lacking=False)
                return
        return
    if isinstance(value, list):
        for one in members:
            if get_origin(one) in _LISTS and get_args(one):
                for number, inner in enumerate(value):
                    check_value(get_args(one)[0], inner, f"{key}.{number}", place)
                return
        return
    words = []
    for one in members:
        fitting = _fits(one, value)
        if fitting is not False:
            return
        words.append(f"one of {', '.join(map(str, get_args(one)))}" if get_origin(one) is Literal else WORDS[one])
    choices = [str(choice) for one in members if get_origin(one) is Literal for choice in get_args(one)]
    suggestion = nearest(value, choices) if isinstance(value, str) and value else ""
    words.sort(key="null".__eq__)
    raise UsageError(f"must be {' or '.join(dict.fromkeys(words))}, got {value!r}", place(key), suggestion)


def check_class(path: str, arguments: Mapping[str, Any], key: str, place: Place, lacking: bool = True) -> None:
    """Refuse a class that there isn't, and arguments that it doesn't take.

    Raises:
        UsageError: For the first mistake.
    """
    if "." not in path:  # a name alone, which the parser finds among the subclasses
        return
    found = class_named(path)
    if found is None:
        raise UsageError(f"there is no class {path}", place(key), _near_class(path))
    if isinstance(arguments, Mapping) and callable(found):
        check_arguments(found, arguments, f"{key}.init_args", place, lacking)


def _members(hint: Any) -> list[Any]:
    """Return the members of a union, those of unions in it too."""
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for one in get_args(hint) for inner in _members(one)]
    return [hint]


def _is_class(hint: Any) -> bool:
    """Say whether a type is a class that a configuration names by ``class_path``."""
    return (isclass(hint) and hint not in WORDS) or getattr(get_origin(hint), "__name__", "") in ("Callable", "type")


def _fits(hint: Any, value: Any) -> bool | None:
    """Say whether a simple value has a type; ``None`` where that can't be said here."""
    if hint is type(None):
        return value is None or value in ("null", "~")
    if get_origin(hint) is Literal:
        return value in get_args(hint) or str(value) in map(str, get_args(hint))
    if hint in (int, float, bool, str):
        unsaid = value is None or (hint is int and isinstance(value, float) and value.is_integer())
        return None if unsaid and value is not None else as_kind(value, hint) is not None
    return None


def _near_class(path: str) -> str:
    """Return the class that a dotted name was probably meant to be, or an empty text."""
    module, _, name = path.rpartition(".")
    try:
        names = [one for one in dir(import_module(module)) if not one.startswith("_")]
    except (ImportError, ValueError):
        return ""
    near = nearest(name, names)
    return f"{module}.{near}" if near else ""


def _called(function: Any) -> str:
    return str(getattr(function, "__name__", function))
