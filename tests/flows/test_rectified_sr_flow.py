import pytest
import torch

from fluxsr.flows import LatentPair, RectifiedSRFlow, UniformTimes, linear_path


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def pair(request, generator):
    return LatentPair(*torch.randn(2, 4, 4, 8, 8, generator=generator, dtype=torch.float64).to(request.param))


def curved(z, t):
    return torch.tanh(z) * (1 + t.to(z).reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_the_exact_straight_flow_has_no_loss_and_restores_in_any_number_of_steps(pair, weights, generator):
    exact = lambda z, t: pair.lr - pair.hr
    objective = RectifiedSRFlow(*weights)
    output = objective(exact, pair, generator=generator)
    small = 1e-28 if pair.hr.dtype == torch.float64 else 1e-11
    assert output.loss <= small
    torch.testing.assert_close(output.x0_hat, pair.hr, rtol=0, atol=small**0.5)
    for steps in (1, 2, 7):
        torch.testing.assert_close(objective.restore(exact, pair.lr, steps), pair.hr, rtol=0, atol=1e-5)


def test_equals_the_equations_written_out(pair, generator):
    times = torch.rand(4, generator=generator)
    distance = lambda a, b: (a - b).abs().mean()
    output = RectifiedSRFlow(distance_weight=2.0, velocity_weight=0.5)(curved, pair, times=times, distance=distance)
    t = times.to(pair.hr).reshape(-1, 1, 1, 1)
    z_t = (1 - t) * pair.hr + t * pair.lr
    v = curved(z_t, times)
    estimate = z_t - t * v
    written_out = 2.0 * (estimate - pair.hr).abs().mean() + 0.5 * (v - (pair.lr - pair.hr)).square().mean()
    torch.testing.assert_close(output.loss, written_out, rtol=1e-6, atol=0)
    torch.testing.assert_close(output.x0_hat, estimate, rtol=1e-6, atol=1e-6)
    assert output.x0_target is pair.hr


def test_more_steps_come_nearer_to_the_flows_own_end(generator):
    """For v = z the flow is z(0) = z(1) / e; Euler's error halves with twice the steps."""
    start = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    errors = [
        float((RectifiedSRFlow().restore(lambda z, t: z, start, steps) - start / torch.e).abs().max())
        for steps in (8, 16, 32)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_the_velocity_loss_alone_measures_no_distance(pair, generator):
    def refuse(a, b):
        raise AssertionError("nothing should be decoded")

    output = RectifiedSRFlow(distance_weight=0.0, velocity_weight=1.0)(
        curved, pair, distance=refuse, generator=generator
    )
    assert output.loss > 0


def test_the_gradient_reaches_the_velocity_model_from_both_terms(pair, generator):
    for weights in [(1.0, 0.0), (0.0, 1.0)]:
        scale = torch.ones((), dtype=pair.hr.dtype, requires_grad=True)
        output = RectifiedSRFlow(*weights)(lambda z, t, scale=scale: scale * z, pair, generator=generator)
        output.loss.backward()
        assert scale.grad.abs() > 1e-3
        assert output.x0_hat.requires_grad


def test_paths_end_in_hr_and_lr(pair):
    """t = 0 is HR, t = 1 is LR: the convention that everything else hangs on."""
    seen = []
    spy = lambda z, t: seen.append(z) or torch.zeros_like(z)
    objective = RectifiedSRFlow()
    objective(spy, pair, times=torch.zeros(4))
    objective(spy, pair, times=torch.ones(4))
    assert torch.equal(seen[0], pair.hr) and torch.equal(seen[1], pair.lr)
    assert torch.equal(linear_path(pair.hr, pair.lr, torch.ones(4)), pair.lr)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -0.1), (0.0, 0.0)])
def test_bad_weights_are_named(weights):
    with pytest.raises(ValueError, match=r"distance_weight.* and velocity_weight"):
        RectifiedSRFlow(*weights)


def test_times_come_from_the_sampler(generator):
    shifted = RectifiedSRFlow(time_sampler=UniformTimes(shift=3.0)).sample_times(20_000, generator=generator)
    plain = RectifiedSRFlow().sample_times(20_000, generator=generator)
    assert plain.mean() == pytest.approx(0.5, abs=0.01)
    assert shifted.mean() > 0.6
    assert 0 <= plain.min() and plain.max() <= 1
