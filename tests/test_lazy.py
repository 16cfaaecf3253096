"""Packages that import their names on first use behave as any other."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("room", ["data", "images", "inference", "evaluation"])
def test_every_public_name_is_there_and_no_other(room):
    package = import_module(f"fluxsr.{room}")
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is vars(package)[name]
    with pytest.raises(AttributeError, match=rf"module 'fluxsr.{room}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018
