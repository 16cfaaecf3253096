"""The public contract in words: every public name has a docstring that fits its signature."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from dataclasses import is_dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest

from tests.conftest import ROOT

PACKAGES = (
    "flows", "losses", "losses.functional", "models", "data", "training", "training.callbacks", "inference", "evaluation",
    "planning",
)  # fmt: skip
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Shapes|Logs|Examples?|Note|Source):", re.MULTILINE)
ENTRY = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", re.MULTILINE)


def public_names() -> list[str]:
    """``package.name`` of all, read from the sources: collecting tests need not import the library."""
    found = []
    for package in PACKAGES:
        path = ROOT / "fluxsr" / package.replace(".", "/")
        tree = ast.parse(
            (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        )
        assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        if "__all__" in assigned:
            names = ast.literal_eval(assigned["__all__"])
        else:
            names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        found += [f"{package}.{name}" for name in names]
    return found


def sections(text: str) -> dict[str, str]:
    """A docstring's sections by heading, each without it."""
    parts = SECTION.split(inspect.cleandoc(text))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(text: str, headings: tuple[str, ...] = ("Args",)) -> list[str]:
    """The names that a docstring's sections describe; ``net, weights: ...`` describes two."""
    found = sections(text)
    entries = [entry for heading in headings for entry in ENTRY.findall(found.get(heading, ""))]
    return [name.lstrip("*") for entry in entries for name in entry.split(", ")]


def arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def raises_value_error(function: Any) -> bool:
    """Whether the body itself has a ``raise ValueError``; functions that are defined inside it count too."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return any(isinstance(error, ast.Call) and getattr(error.func, "id", "") == "ValueError" for error in raised)


def written_here(cls: type) -> Any:
    """The class's ``__init__`` as this library wrote it; another library's is documented there."""
    init = inspect.getattr_static(cls, "__init__")
    return init if inspect.isfunction(init) and init.__module__.startswith("fluxsr") else None


def is_record(value: Any) -> bool:
    """Whether the constructor was made from fields: a dataclass or a NamedTuple."""
    return is_dataclass(value) or hasattr(value, "_fields")


def faults(name: str, value: Any) -> list[str]:
    """What a public function or class lacks."""
    text = value.__doc__ or ""
    if not text.strip() or (
        is_dataclass(value) and text.startswith(f"{value.__name__}(")
    ):  # which dataclass makes itself
        return [f"{name} has no docstring"]
    headings, function = ("Args",), value
    if is_record(value):
        headings = ("Args", "Attributes")
    elif inspect.isclass(value):
        function = written_here(value)
    if function is None or getattr(value, "_is_protocol", False):
        return []
    wanted, found = arguments(function), described(text, headings)
    if is_dataclass(value):  # inherited fields are described where they come from
        bases = [base for base in inspect.getmro(value)[1:] if is_dataclass(base)]
        found = [*found, *(field for base in bases for field in described(base.__doc__ or "", headings))]
    result = [f"{name} does not describe {argument}" for argument in wanted if argument not in found]
    result += [f"{name} describes {argument}, which it does not take" for argument in found if argument not in wanted]
    if not is_record(value) and raises_value_error(function) and "Raises" not in sections(text):
        result.append(f"{name} raises ValueError and does not say so")
    return result


def method_faults(name: str, cls: type) -> list[str]:
    """What the public methods that a class defines itself lack, of what they describe and raise."""
    result = []
    for method, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if method.startswith("_") or not inspect.isfunction(function) or not function.__module__.startswith("fluxsr"):
            continue
        function = inspect.unwrap(function)
        text = function.__doc__ or ""
        found, wanted = described(text), arguments(function)
        result += [f"{name}.{method} describes {one}, which it does not take" for one in found if one not in wanted]
        if found:
            result += [f"{name}.{method} does not describe {one}" for one in wanted if one not in found]
        if raises_value_error(function) and "Raises" not in sections(text):
            result.append(f"{name}.{method} raises ValueError and does not say so")
    return result


def has_attribute_docstring(module: Any, name: str) -> bool:
    """Whether a string follows the assignment of a name, in the module that makes it."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, following in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(getattr(target, "id", None) == name for target in targets):
            return isinstance(following, ast.Expr) and isinstance(getattr(following.value, "value", None), str)
    return False


def home_of(name: str) -> Any:
    """The module of this library that assigns a public constant."""
    pattern = re.compile(rf"^{name}\b[^=\n]*=", re.MULTILINE)
    modules = [module for key, module in sorted(sys.modules.items()) if key.startswith("fluxsr.")]
    return next(module for module in modules if pattern.search(inspect.getsource(module)))


@pytest.mark.parametrize("path", public_names())
def test_a_public_name_says_what_it_takes_and_raises(path):
    package, _, name = path.rpartition(".")
    value = getattr(import_module(f"fluxsr.{package}"), name)
    if inspect.isclass(value) and value.__module__.startswith("fluxsr"):
        assert faults(name, value) + method_faults(name, value) == []
    elif inspect.isfunction(value):
        assert faults(name, value) == []
    else:
        assert has_attribute_docstring(home_of(name), name), f"{name} has no string after its assignment"


def test_the_check_sees_what_is_missing():
    def right(a, *, b, **c):
        """Do it.

        Args:
            a, b: two numbers.
                In two lines: with a colon.
            **c: others.

        Raises:
            ValueError: always.
        """
        raise ValueError("always")

    def wrong(a, b):
        """Do it.

        Args:
            a: a number.
            c: another.
        """
        raise ValueError("always")

    assert faults("right", right) == []
    assert faults("wrong", wrong) == [
        "wrong does not describe b",
        "wrong describes c, which it does not take",
        "wrong raises ValueError and does not say so",
    ]
    assert faults("bare", lambda: None) == ["bare has no docstring"]
