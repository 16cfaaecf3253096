"""``DegradationMix``: every image gets one of the degradations, as that one alone makes it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fluxsr.data import BicubicDegradation, DegradationMix, RealESRGANDegradation


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_an_image_comes_out_as_the_drawn_one_makes_it(image):
    heavy, mild = RealESRGANDegradation(), BicubicDegradation()
    mix = DegradationMix([heavy, mild], [0.5, 0.5])
    seeds = list(range(12))
    batch = mix(image.expand(12, -1, -1, -1), seeds=seeds)
    assert {mix.drawn(seed) for seed in seeds} == {heavy, mild}
    for one, seed in zip(batch, seeds, strict=True):
        assert torch.equal(one, mix.drawn(seed)(image, seeds=seed))
        assert torch.equal(one, mix(image, seeds=seed))


def test_shares_are_kept_in_any_unit():
    parts = [BicubicDegradation(), BicubicDegradation(), BicubicDegradation()]
    mix = DegradationMix(parts, [1, 2, 5])
    counts = Counter(parts.index(mix.drawn(seed)) for seed in range(4000))
    # Four standard deviations of a share of 4,000 are at most 0.032.
    assert [counts[number] / 4000 for number in range(3)] == pytest.approx([0.125, 0.25, 0.625], abs=0.032)


def test_the_choice_says_nothing_about_what_the_degradation_draws():
    heavy = RealESRGANDegradation()
    mix = DegradationMix([heavy, BicubicDegradation()], [0.5, 0.5])
    kernels: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(1500):
        recipe = heavy.draw(torch.Generator().manual_seed(seed))
        kernels[mix.drawn(seed) is heavy].append(recipe.first.jpeg_quality)
    means = [sum(values) / len(values) for values in kernels.values()]
    assert abs(means[0] - means[1]) < 4 * 19 * (2 / 750) ** 0.5  # qualities of 30..95: a standard deviation of 19


@pytest.mark.parametrize(
    ("parts", "shares", "match"),
    [
        ([], [], "one positive share for each degradation: 0 degradations"),
        ([BicubicDegradation()], [0.5, 0.5], r"1 degradations, shares \[0.5, 0.5\]"),
        ([BicubicDegradation(), BicubicDegradation()], [1, 0], "positive share"),
        ([BicubicDegradation(4), BicubicDegradation(2)], [1, 1], r"one scale, got \[2, 4\]"),
    ],
)
def test_what_is_no_mix_is_refused(parts, shares, match):
    with pytest.raises(ValueError, match=match):
        DegradationMix(parts, shares)


def test_a_mix_and_its_parts_are_of_the_datas_scale():
    parts = [BicubicDegradation(2), RealESRGANDegradation()]
    mix = DegradationMix(parts, [1, 1])
    assert mix.scale == parts[1].scale == 2
    with pytest.raises(ValueError, match="scale is 4 and the degradation's 2"):
        mix.follow(4)
