import pytest
import torch

from fluxsr.flows import FlowTrajectoryDistillation, LatentPair


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def pair(request, generator):
    return LatentPair(*torch.randn(3, 4, 4, 8, 8, generator=generator, dtype=torch.float64).to(request.param))


@pytest.mark.parametrize("lr_time", [0.02, 0.25, 0.7])
def test_oracle_has_no_loss_and_restores_exactly(lr_time, generator):
    pair = LatentPair(*torch.randn(3, 4, 4, 8, 8, generator=generator, dtype=torch.float64))
    oracle = lambda xt, t: (pair.lr - pair.hr) / lr_time
    objective = FlowTrajectoryDistillation(lr_time)
    output = objective(oracle, pair, generator=generator)
    assert output.loss < 1e-28
    torch.testing.assert_close(output.x0_hat, pair.hr, rtol=0, atol=1e-14)
    for steps in (1, 3):
        torch.testing.assert_close(objective.restore(oracle, pair.lr, steps), pair.hr, rtol=0, atol=1e-13)


def test_the_exact_flow_to_noise_is_not_the_oracle(pair, generator):
    # Another base model's sign or time convention must not pass unnoticed: minus the oracle's velocity restores wrongly.
    objective = FlowTrajectoryDistillation(0.25)
    wrong = lambda xt, t: (pair.hr - pair.lr) / 0.25
    assert objective(wrong, pair, generator=generator).loss > 1


def test_equals_the_papers_equations_written_out(pair, generator):
    """Eq. 13 to 18, each as printed, with an arbitrary velocity field."""
    t_l = 0.3
    z_0, z_l, eps = pair[:3]
    v_field = lambda z, t: torch.tanh(z) * (1 + t.to(z).reshape(-1, 1, 1, 1))
    objective = FlowTrajectoryDistillation(t_l)
    times = objective.sample_times(4, generator=generator)
    output = objective(v_field, pair, times=times)

    t = times.to(z_0).reshape(-1, 1, 1, 1)
    u = eps - z_0  # eq. 8
    u_l = (eps - z_l) / (1 - t_l)  # eq. 13
    z_t = (1 - t) / (1 - t_l) * z_l + (t - t_l) / (1 - t_l) * eps  # eq. 16
    v = v_field(z_t, times)
    v_phi = (u - t_l * v) / (1 - t_l)  # eq. 15
    written_out = ((1 - t_l) * v_phi - (eps - z_l)).square().mean()  # eq. 17
    torch.testing.assert_close(output.loss, written_out, rtol=1e-6, atol=0)
    by_u_l = (1 - t_l) ** 2 * (v_phi - u_l).square().mean()
    torch.testing.assert_close(output.loss, by_u_l, rtol=1e-6, atol=0)
    z_hat = z_l - t_l * v_field(z_l, torch.full((4,), t_l))  # eq. 18
    torch.testing.assert_close(output.x0_hat, z_hat, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lr_time", [0.25, 0.3, 0.37])
def test_path_ends(pair, lr_time):
    objective = FlowTrajectoryDistillation(lr_time)
    start, end = (objective.path(pair.lr, pair.noise, torch.full((4,), t)) for t in (lr_time, 1.0))
    torch.testing.assert_close(start, pair.lr, rtol=0, atol=1e-6)
    torch.testing.assert_close(end, pair.noise, rtol=0, atol=1e-6)


def test_times_lie_on_the_path_and_are_uniform(generator):
    t = FlowTrajectoryDistillation(0.4).sample_times(100_000, generator=generator)
    assert 0.4 <= t.min() and t.max() <= 1
    assert abs(t.mean() - 0.7) < 0.003
    assert abs(t.var() - 0.6**2 / 12) < 0.001


def test_the_output_says_which_call_of_the_model_restores(pair):
    calls = []
    output = FlowTrajectoryDistillation(0.25)(lambda xt, t: calls.append((xt, t)) or xt, pair)
    assert len(calls) == 2
    xt, t = calls[output.restoration_pass]
    assert xt is pair.lr
    assert torch.equal(t, torch.full((4,), 0.25))
    torch.testing.assert_close(output.x0_hat, pair.lr - 0.25 * pair.lr)


def test_both_terms_give_the_model_a_gradient(pair):
    weight = torch.ones((), requires_grad=True)
    output = FlowTrajectoryDistillation()(lambda xt, t: weight * xt, pair)
    for value in (output.loss, output.x0_hat.square().mean()):
        (gradient,) = torch.autograd.grad(value, weight, retain_graph=True)
        assert gradient != 0 and gradient.isfinite()


@pytest.mark.parametrize("lr_time", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_lr_time_outside_is_refused(lr_time):
    with pytest.raises(ValueError, match=r"lr_time must lie in \(0, 1\), got"):
        FlowTrajectoryDistillation(lr_time)


def test_a_time_that_is_measured_later_is_asked_for_until_then(pair):
    objective = FlowTrajectoryDistillation("auto")
    assert not objective.is_settled and "auto" in repr(objective)
    for ask in (
        lambda: objective(lambda xt, t: xt, pair),
        lambda: objective.start_time,
        lambda: objective.sample_times(2),
    ):
        with pytest.raises(ValueError, match="was not measured yet"):
            ask()
    objective.lr_time = 0.4
    assert objective.is_settled and objective.start_time == 0.4
    with pytest.raises(ValueError, match="got 'auto'"):
        objective.lr_time = "auto"


def test_state_dicts_keep_it_in_full_and_load_with_it_or_without(tmp_path):
    from safetensors.torch import load_file, load_model, save_model

    make = lambda lr_time: torch.nn.ModuleDict(
        {"net": torch.nn.Linear(2, 2), "flow": FlowTrajectoryDistillation(lr_time)}
    )
    module, fresh = make(0.3), make("auto")
    save_model(module.half(), str(tmp_path / "all.safetensors"))
    load_model(fresh.half(), str(tmp_path / "all.safetensors"))
    assert fresh["flow"].lr_time == 0.3 and float(load_file(tmp_path / "all.safetensors")["flow.lr_time"]) == 0.3
    state = {name: value for name, value in module.state_dict().items() if name.startswith("net.")}
    other = make(0.6).half()
    other.load_state_dict(state)
    assert other["flow"].lr_time == 0.6
    with pytest.raises(RuntimeError, match="unknown"):
        other.load_state_dict({**state, "flow.unknown": torch.zeros(1)})


def test_times_before_the_lr_end_are_refused(pair):
    with pytest.raises(ValueError, match=r"\[0.25, 1\]"):
        FlowTrajectoryDistillation(0.25)(lambda xt, t: xt, pair, times=torch.full((4,), 0.1))
    broken = pair.lr.clone()
    broken[2, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"lr .*\[2\]"):
        FlowTrajectoryDistillation(0.25)(lambda xt, t: xt, pair._replace(lr=broken))


def test_path_in_bfloat16(generator):
    # In bfloat16 the time 0.301 is 0.30078: computed there, the share would be negative and the check would fire.
    lr, noise = torch.randn(2, 3, 1, 2, 2, generator=generator).bfloat16()
    state = FlowTrajectoryDistillation(0.301).path(lr, noise, torch.full((3,), 0.301))
    assert torch.equal(state, lr)
