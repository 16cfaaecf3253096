from types import SimpleNamespace

import pytest
import torch

from fluxsr.flows import (
    ConsistencySRFlow,
    FlowMatching,
    FlowTrajectoryDistillation,
    LatentPair,
    RectifiedSRFlow,
)

OBJECTIVES = [FlowMatching(), FlowTrajectoryDistillation(), RectifiedSRFlow(), ConsistencySRFlow()]


@pytest.fixture
def pair(generator):
    return LatentPair(*torch.randn(3, 2, 4, 8, 8, generator=generator))


@pytest.fixture(params=OBJECTIVES, ids=lambda objective: type(objective).__name__)
def call(request):
    """The objective with what it needs beside the student and the pair."""
    objective = request.param
    roles = dict.fromkeys(objective.roles, lambda xt, t: torch.zeros_like(xt))
    return lambda velocity, pair, **options: objective(velocity, pair, **roles, **options)


def test_a_velocity_that_is_no_tensor_is_named(call, pair):
    with pytest.raises(ValueError, match=r"the velocity model returned a tuple.*\[0\]"):
        call(lambda xt, t: (xt,), pair)
    with pytest.raises(ValueError, match=r"returned a SimpleNamespace.*\.sample"):
        call(lambda xt, t: SimpleNamespace(sample=xt), pair)


def test_a_teacher_that_returns_no_tensor_is_named(pair):
    def right(xt, t):
        return torch.zeros_like(xt)

    def wrong(xt, t):
        return (xt,)

    for roles in ({"teacher": wrong, "target": right}, {"teacher": right, "target": wrong}):
        with pytest.raises(ValueError, match="the velocity model returned a tuple"):
            ConsistencySRFlow(flow_share=0)(right, pair, **roles)


@pytest.mark.parametrize("times", [0.5, [0.5, 0.5]])
def test_times_that_are_no_tensor_are_named(call, pair, times):
    with pytest.raises(ValueError, match=r"times must be a .*tensor.*got .*0\.5"):
        call(lambda xt, t: torch.zeros_like(xt), pair, times=times)


def test_a_pair_of_floats_is_no_pair_of_times(pair):
    zero = lambda xt, t: torch.zeros_like(xt)
    with pytest.raises(ValueError, match=r"the pair \(s, t\) of tensors, got \(0.1, 0.5\)"):
        ConsistencySRFlow()(zero, pair, teacher=zero, target=zero, times=(0.1, 0.5))


def test_what_is_no_latent_pair_is_told_how_to_become_one(call, pair):
    with pytest.raises(ValueError, match=r"takes a LatentPair\(hr, lr, noise\), got a dict: LatentPair\(\*\*pair\)"):
        call(lambda xt, t: torch.zeros_like(xt), pair._asdict())
    with pytest.raises(ValueError, match=r"got a Tensor$"):
        call(lambda xt, t: torch.zeros_like(xt), pair.hr)
    with pytest.raises(ValueError, match=r"hr must be a tensor of latents .* got ndarray"):
        call(lambda xt, t: torch.zeros_like(xt), pair._replace(hr=pair.hr.numpy()))
