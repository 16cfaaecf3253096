"""Every public name has a docstring, and none describes an argument that is not there."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from typing import Any

import pytest

from tests.conftest import ROOT

PACKAGES = (
    "flows", "losses", "losses.functional", "models", "data", "training", "training.callbacks", "inference", "evaluation",
    "planning",
)  # fmt: skip
ARGUMENTS = re.compile(r"^Args:\n((?:(?: .*)?\n?)*)", re.MULTILINE)
ENTRY = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", re.MULTILINE)


def public_names() -> list[str]:
    """``package.name`` of all, read from the sources: collecting tests need not import the library."""
    found = []
    for package in PACKAGES:
        path = ROOT / "fluxsr" / package.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        names = ast.literal_eval(assigned["__all__"]) if "__all__" in assigned else own
        found += [f"{package}.{name}" for name in names]
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
    if not inspect.isclass(value) and not inspect.isfunction(value):  # a constant or an alias
        return
    assert (value.__doc__ or "").strip() and not value.__doc__.startswith(f"{name}(")
    assert set(described(value)) <= set(inspect.signature(value).parameters)


def test_what_is_wrong_is_found():
    def wrong(a):
        """Do it.

        Args:
            a, b: Two numbers.
        """

    assert described(wrong) == ["a", "b"]
