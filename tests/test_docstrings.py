"""Every public name has a docstring, and none describes an argument that is not there."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import pytest

PACKAGES = (
    "flows", "losses", "losses.functional", "models", "data", "training", "training.callbacks", "inference", "evaluation",
    "planning",
)  # fmt: skip
ARGUMENTS = re.compile(r"^Args:\n((?:(?: .*)?\n?)*)", re.MULTILINE)
ENTRY = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", re.MULTILINE)


def public_names() -> list[str]:
    """``package.name`` of what packages export, or a module without ``__all__`` defines."""
    found = []
    for package in PACKAGES:
        module = import_module(f"fluxsr.{package}")
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
        found += [f"{package}.{name}" for name in getattr(module, "__all__", functions)]
    return found


def described(value: Any) -> list[str]:
    """The arguments that a docstring describes."""
    found = ARGUMENTS.search(inspect.cleandoc(value.__doc__ or ""))
    entries = ENTRY.findall(found[1]) if found else []
    return [name.lstrip("*") for entry in entries for name in entry.split(", ")]


@pytest.mark.parametrize("path", public_names())
def test_a_public_name_is_described(path):
    package, _, name = path.rpartition(".")
    value = getattr(import_module(f"fluxsr.{package}"), name)
    if inspect.isclass(value) or inspect.isfunction(value):  # else a constant or an alias
        assert (value.__doc__ or "").strip() and not value.__doc__.startswith(f"{name}(")
        assert set(described(value)) <= set(inspect.signature(value).parameters)


def test_what_is_wrong_is_found():
    def wrong(a):
        """Do it.

        Args:
            a, b: Two numbers.
        """

    assert described(wrong) == ["a", "b"]
