import pytest
import torch

from fluxsr.flows import FastSlowSchedule, shift_times

DRAWS = 1_000_000


def on_grid(times, grid):
    """Whether each time is one of the grid's, exactly: they are read off it."""
    return torch.isin(times, grid)


def test_a_million_pairs_keep_the_law(generator):
    schedule = FastSlowSchedule(fast_steps=4, slow_steps=1000)
    s, t = schedule.sample(DRAWS, generator=generator)
    assert s.dtype == t.dtype == torch.float32 and s.shape == t.shape == (DRAWS,)
    assert s.min() == 0 and t.max() == 1
    assert (s < t).all() and (t - s <= 0.25 + 1e-6).all()
    s_fast, t_fast = on_grid(s, schedule.fast_grid), on_grid(t, schedule.fast_grid)
    assert (s_fast | t_fast).all()
    assert on_grid(s, schedule.slow_grid).all() and on_grid(t, schedule.slow_grid).all()
    # Of 250 slow times in an interval one makes both ends fast, so a share of (1 + 1/250) / 2 has t on the fast grid.
    assert t_fast.double().mean() == pytest.approx(0.502, abs=0.002)
    assert s_fast.double().mean() == pytest.approx(0.502, abs=0.002)
    assert (s_fast & t_fast).double().mean() == pytest.approx(0.004, abs=0.0005)
    # Gaps are uniform on the slow grid within an interval: 1/1000 to 250/1000.
    gaps = ((t - s) * 1000).round().long()
    counts = gaps.bincount(minlength=251)[1:].double() / DRAWS
    assert (counts - 1 / 250).abs().max() < 6 * (1 / 250 / DRAWS) ** 0.5
    # All four intervals are visited alike.
    middle = ((s + t) / 2 * 4).floor().long().bincount(minlength=4).double() / DRAWS
    assert (middle - 0.25).abs().max() < 0.003


@pytest.mark.parametrize("fast_share", [0.0, 0.3, 1.0])
def test_the_share_says_whose_end_is_fast(fast_share, generator):
    schedule = FastSlowSchedule(4, 1000, fast_share=fast_share)
    s, t = schedule.sample(100_000, generator=generator)
    t_fast = on_grid(t, schedule.fast_grid).double().mean()
    assert t_fast == pytest.approx(fast_share + (1 - fast_share) / 250, abs=0.006)
    if fast_share == 1:
        assert on_grid(t, schedule.fast_grid).all()
    if fast_share == 0:
        assert on_grid(s, schedule.fast_grid).all()


@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_equal_grids_are_plain_consistency_training(steps, generator):
    s, t = FastSlowSchedule(steps, steps).sample(10_000, generator=generator)
    torch.testing.assert_close(t - s, torch.full_like(t, 1 / steps), rtol=0, atol=1e-6)
    assert len(t.unique()) == steps


def test_shifted_grids_nest_and_keep_the_law(generator):
    schedule = FastSlowSchedule(4, 1000, shift=3.0)
    expected = shift_times(torch.tensor([0, 0.25, 0.5, 0.75, 1.0]), 3.0)
    torch.testing.assert_close(schedule.fast_grid, expected)
    s, t = schedule.sample(100_000, generator=generator)
    assert (s < t).all()
    # No pair reaches over a fast time.
    interval = torch.bucketize((s + t) / 2, schedule.fast_grid)
    assert (s >= schedule.fast_grid[interval - 1]).all() and (t <= schedule.fast_grid[interval]).all()


def test_grids_can_be_given_time_by_time(generator):
    # The four steps of a shifted sampler, from method.md: about 1, .858, .602, .009.
    schedule = FastSlowSchedule([0.0, 0.009, 0.602, 0.858, 1.0], 1000)
    s, t = schedule.sample(10_000, generator=generator)
    assert (s < t).all() and (on_grid(s, schedule.fast_grid) | on_grid(t, schedule.fast_grid)).all()


def test_one_seed_gives_the_same_pairs():
    draws = [FastSlowSchedule().sample(64, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fast_steps": 3, "slow_steps": 1000}, r"don't nest: the fast time 0\.33\d+ is not on the slow grid of 1000 steps"),
        ({"fast_steps": 1000, "slow_steps": 4}, "don't nest"),
        ({"fast_steps": 0}, "fast_steps must be at least 1, got 0"),
        ({"slow_steps": -5}, "slow_steps must be at least 1, got -5"),
        ({"fast_steps": [0.0, 0.5]}, "must ascend from 0 to 1"),
        ({"fast_steps": [0.0, 0.6, 0.5, 1.0]}, "must ascend from 0 to 1"),
        ({"fast_share": 1.5}, r"fast_share is a probability and must lie in \[0, 1\], got 1.5"),
        ({"shift": 0.0}, "shift must be positive"),
    ],
)  # fmt: skip
def test_bad_grids_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        FastSlowSchedule(**arguments)
