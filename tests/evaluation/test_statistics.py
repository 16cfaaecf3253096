import numpy as np
import pytest

from fluxsr.evaluation.run import bootstrap_interval, sign_flip_p_value


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    dice = np.random.default_rng(0)
    hits = [low <= 3 <= high for low, high in (bootstrap_interval(dice.normal(3, 2, 60)) for _ in range(200))]
    assert 0.89 <= np.mean(hits) <= 0.99


def test_the_interval_is_seeded_and_as_wide_as_theory_has_it():
    values = np.random.default_rng(1).normal(0, 1, 400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)


def test_the_p_value_is_exact_for_few_images():
    # Of the eight sign patterns of (1, 2, 3) only +++ and --- have a mean as far from 0.
    assert sign_flip_p_value([1, 2, 3]) == 2 / 8
    # (3, 0, 0): whatever the signs.
    assert sign_flip_p_value([3, 0, 0]) == 1
    assert sign_flip_p_value([0.0, 0.0]) == 1
    assert sign_flip_p_value([0.1] * 12) == 2 / 4096


def test_the_p_value_of_many_images_tells_a_difference_from_none():
    dice = np.random.default_rng(0)
    assert sign_flip_p_value(dice.normal(0.5, 1, 100)) < 0.001
    values = [sign_flip_p_value(dice.normal(0, 1, 30)) for _ in range(100)]
    assert 0.01 <= np.mean([value < 0.05 for value in values]) <= 0.1  # uniform under the null hypothesis


def test_thousands_of_images_are_resampled_in_portions(monkeypatch):
    values = np.random.default_rng(1).normal(size=50)
    whole = bootstrap_interval(values), sign_flip_p_value(values)
    monkeypatch.setattr("fluxsr.evaluation.run._AT_A_TIME", 1234)
    assert (bootstrap_interval(values), sign_flip_p_value(values)) == whole
