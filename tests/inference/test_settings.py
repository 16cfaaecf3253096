"""How large results become."""

import math
import re

import numpy as np
import pytest

from fluxsr.inference.settings import Sizes


@pytest.mark.parametrize("scale", [1, 1.5, 0.3, 2.37])
@pytest.mark.parametrize("side", [1, 7, 517])
def test_output_sizes(scale, side):
    assert Sizes(scale).of(side, 1) == (max(1, round(side * scale)), max(1, round(scale)))


def test_an_exact_size_wins():
    assert Sizes(4, (30, 50)).of(7, 9) == (30, 50)


@pytest.mark.parametrize("scale", [0, -1, math.inf, math.nan, None])
def test_bad_scales(scale):
    with pytest.raises(ValueError, match=f"scale must be a positive number, got {scale}"):
        Sizes(scale).of(4, 4)


def test_bad_sizes():
    with pytest.raises(ValueError, match="size must be two positive numbers of pixels"):
        Sizes(size=(0, 3)).of(4, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": "2"}, {"size": 100}, {"size": (10, 9.5)}, {"longest": 1.5}, {"width": "64"}, {"height": True - 1}],
)
def test_what_is_no_number_of_pixels_is_named(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} must be .*{re.escape(repr(value))}"):
        Sizes(**wrong).of(20, 30)


def test_whole_numbers_of_any_kind_are_pixels():
    assert Sizes(size=[np.int64(40), 60.0]).of(20, 30) == (40, 60)
    assert Sizes(longest=np.int32(60)).of(20, 30) == Sizes(np.float32(2)).of(20, 30) == (40, 60)
