"""Finds a class or function by its dotted name, and the arguments that it takes."""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, isclass, signature
from typing import Any, get_type_hints


def class_named(path: Any) -> Any:
    """Return the class or function of a dotted name, ``None`` where there is none: the parser says so itself."""
    module, _, name = str(path).rpartition(".")
    try:
        return getattr(import_module(module), name, None) if module else None
    except (ImportError, ValueError):
        return None


def class_arguments(function: Any) -> tuple[dict[str, bool], dict[str, Any], bool]:
    """Return the arguments of a class or function, each with whether it is required; their types; whether these are all.

    What a class takes as ``**kwargs`` are the arguments of the class that it derives from.
    """
    parameters: dict[str, bool] = {}
    hints: dict[str, Any] = {}
    for one in function.__mro__[:-1] if isclass(function) else [function]:
        if isclass(one) and "__init__" not in vars(one) and "__new__" not in vars(one):
            continue
        maker = (vars(one).get("__init__") or vars(one)["__new__"]) if isclass(one) else one
        try:
            own = [*signature(maker).parameters.values()][isclass(one) :]
        except (TypeError, ValueError):  # made in C
            return parameters, hints, False
        try:
            types_of = get_type_hints(maker)
        except (NameError, TypeError, AttributeError):  # of names that only a type checker sees
            types_of = {}
        for parameter in own:
            if parameter.kind in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL) or parameter.name in parameters:
                continue
            parameters[parameter.name] = parameter.default is Parameter.empty
            hints[parameter.name] = types_of.get(parameter.name)
        if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in own):
            return parameters, hints, True
    return parameters, hints, False
