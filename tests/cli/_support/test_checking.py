"""Values and arguments against signatures: what is refused, and what is left to the parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch

from fluxsr.cli._support.checking import check_arguments, check_value
from fluxsr.cli._support.class_arguments import class_arguments
from fluxsr.cli._support.messages import UsageError
from fluxsr.data.degradation.real_esrgan import RealESRGANDegradation


@dataclass
class Ranges:
    low: float = 0.0


class Base:
    def __init__(self, size: int, mode: Literal["a", "b"] = "a") -> None: ...


class Derived(Base):
    def __init__(self, *args: Any, extra: float | None = None, **kwargs: Any) -> None: ...


def anything(**options: Any) -> None: ...


HERE = __name__


def check(hint: Any, value: Any) -> None:
    check_value(hint, value, "key", lambda key: f"file: {key}")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3),
        (int, "3"),
        (int, 1e5),  # whether that is whole is the parser's to say
        (float, 3),
        (float, "1e-3"),
        (float | torch.Tensor, "0.001"),  # a number, though a class may stand there and there is a dot in it
        (float | torch.Tensor, "1.5e-3"),
        (bool, "true"),
        (int | None, None),
        (int | None, "null"),
        (int, "${data.crop}"),
        (Literal["a", 2], "2"),
        (list[int], [1, 2]),
        (dict[str, int], {"a": 1}),
        (Ranges, {"low": 1}),
        (Base, {"class_path": f"{HERE}.Base", "init_args": {"size": 3}}),
        (Base, {"class_path": f"{HERE}.Derived", "init_args": {"size": 3, "extra": 0.5}}),
        (Callable[..., Base], {"class_path": f"{HERE}.Base"}),  # who calls it gives the rest
        (Base, {"class_path": "Base", "init_args": {"sizes": 3}}),  # a name alone is the parser's to find
        (complex, "what that means is not known here"),
        (anything, 3),
    ],
)
def test_what_is_taken(hint, value):
    check(hint, value)


@pytest.mark.parametrize(
    ("hint", "value", "where", "meant"),
    [
        (int, "three", "key", ""),
        (int, True, "key", ""),
        (float, None, "key", ""),
        (bool, 3, "key", ""),
        (str, 3, "key", ""),
        (int | None, "x", "key", ""),
        (Literal["left", "right"], "rigth", "key", "right"),
        (list[int], [1, "x"], "key.1", ""),
        (dict[str, int], {"a": "x"}, "key.a", ""),
        (Ranges, {"lwo": 1}, "key.lwo", "low"),
        (Base, f"{HERE}.Bsae", "key", f"{HERE}.Base"),
        (Base, {"class_path": f"{HERE}.Bsae"}, "key", f"{HERE}.Base"),
        (Base, {"class_path": f"{HERE}.Derived", "init_args": {"size": 3, "mdoe": "a"}}, "key.init_args.mdoe", "mode"),
        (Base, {"class_path": f"{HERE}.Base", "init_args": {"size": 3, "mode": "c"}}, "key.init_args.mode", ""),
    ],
)
def test_what_is_refused(hint, value, where, meant):
    with pytest.raises(UsageError) as raised:
        check(hint, value)
    assert (raised.value.where, raised.value.suggestion) == (f"file: {where}", meant)


def test_what_is_lacking_is_named():
    with pytest.raises(UsageError) as raised:
        check_arguments(Base, {}, "model", str)
    assert "model.size" in raised.value.what
    check_arguments(Base, {}, "model", str, lacking=False)


def test_arguments_go_through_kwargs_to_the_class_that_is_derived_from():
    assert class_arguments(Derived)[0] == {"extra": False, "size": True, "mode": False}
    assert class_arguments(Derived)[2] is True
    assert class_arguments(anything) == ({}, {}, False)
    check_arguments(anything, {"whatever": 3}, "key", str)


@pytest.mark.parametrize(
    ("before", "now"),
    [("blur_sigma", "first.blur_sigma"), ("blur_sigma2", "second.blur_sigma"), ("jpeg_range2", "second.jpeg_range")],
)
def test_a_key_that_moved_names_its_successor(before, now):
    with pytest.raises(UsageError) as raised:
        check_arguments(RealESRGANDegradation, {before: [1, 2]}, "data.degradation", str)
    assert raised.value.suggestion == now
