import math

import pytest
import torch

from fluxsr.flows import (
    ConsistencySRFlow,
    FlowTrajectoryDistillation,
    GridTimes,
    LogitNormalTimes,
    RectifiedSRFlow,
    UniformTimes,
    resolution_shift,
    shift_times,
)


def test_uniform_statistics(generator):
    t = UniformTimes()(100_000, generator=generator)
    assert t.shape == (100_000,) and t.dtype == torch.float32
    assert 0 <= t.min() and t.max() < 1
    assert abs(t.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / 1e5)
    assert abs(t.var() - 1 / 12) < 0.002


def test_logit_normal_has_the_right_normal_inside(generator):
    t = LogitNormalTimes(mean=0.5, std=0.7)(100_000, generator=generator)
    logit = torch.logit(t.double())
    assert abs(logit.mean() - 0.5) < 0.01
    assert abs(logit.std() - 0.7) < 0.01


def test_shift_has_its_known_values():
    # The four-step grid under shift 3 that diffusers' flow-matching schedulers produce from even quarters.
    expected = torch.tensor([0.0, 0.5, 0.75, 0.9, 1.0])
    torch.testing.assert_close(shift_times(torch.tensor([0, 0.25, 0.5, 0.75, 1.0]), 3.0), expected)


def test_shift_moves_the_samples(generator):
    plain = UniformTimes()(1000, generator=torch.Generator().manual_seed(1))
    shifted = UniformTimes(shift=3.0)(1000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))


def test_resolution_shift_has_flux_ends():
    assert resolution_shift(256) == pytest.approx(math.exp(0.5))
    assert resolution_shift(4096) == pytest.approx(math.exp(1.15))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformTimes(shift=0), "shift must be positive, got 0"),
        (lambda: LogitNormalTimes(std=-1.0), "std must be positive, got -1.0"),
        (lambda: shift_times(torch.zeros(1), -2), "shift must be positive, got -2"),
        (lambda: resolution_shift(0), "image_tokens must be at least 1, got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_grid_times_are_all_drawn_equally_often_and_nothing_else(generator):
    sampler = GridTimes(5, shift=3.0)
    drawn, counts = sampler(10_000, generator=generator).unique(return_counts=True)
    assert torch.equal(drawn, sampler.grid())
    assert sampler.grid()[0] == 0 and sampler.grid()[-1] == 1
    assert ((counts - 2000).abs() < 5 * math.sqrt(1600)).all()
    assert UniformTimes().grid() is None
    with pytest.raises(ValueError, match="at least 2"):
        GridTimes(1)


def test_grids_of_the_objectives():
    assert FlowTrajectoryDistillation(0.3).time_grid() is None
    assert FlowTrajectoryDistillation(0.3, time_sampler=GridTimes(5)).time_grid().tolist() == pytest.approx(
        [0.3, 0.475, 0.65, 0.825, 1.0]
    )
    assert RectifiedSRFlow(time_sampler=GridTimes(3, shift=3.0)).time_grid().tolist() == [0, 0.75, 1]
    assert ConsistencySRFlow().time_grid() is None
    assert len(ConsistencySRFlow(time_sampler=GridTimes(5)).time_grid()) == 1001
