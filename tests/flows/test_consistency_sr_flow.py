import pytest
import torch

from fluxsr.flows import ConsistencySRFlow, FastSlowSchedule, LatentPair, PairedTimes, RectifiedSRFlow, Role, latent_mse


@pytest.fixture
def pair(generator):
    return LatentPair(*torch.randn(2, 6, 4, 8, 8, generator=generator, dtype=torch.float64))


class Field(torch.nn.Module):
    """A curved velocity field with one weight, which remembers when it was called with gradient."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.calls = []

    def forward(self, z, t):
        self.calls.append((len(z), torch.is_grad_enabled()))
        return torch.tanh(self.weight * z) * (1 + t.to(z).reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("flow_share", [0.0, 0.5])
def test_every_term_is_zero_for_the_exact_straight_flow(flow_share, generator):
    # All rows share one pair, so that the oracle need not know which rows it is asked for.
    hr, lr = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    pair = LatentPair(hr.expand(6, -1, -1, -1), lr.expand(6, -1, -1, -1))
    oracle = lambda z, t: (lr - hr).expand(len(z), -1, -1, -1)
    objective = ConsistencySRFlow(flow_share=flow_share, velocity_weight=1.0)
    output = objective(oracle, pair, teacher=oracle, target=oracle, generator=generator)
    # s and t are float32, which leaves (1e-7)^2.
    assert output.loss < 1e-13
    assert set(output.logs) == {"consistency", "hr_regularisation"} | ({"sr_flow"} if flow_share else set())
    assert all(value < 1e-13 for value in output.logs.values())
    for estimate, target in [(output.x0_hat, output.x0_target), *output.estimates]:
        torch.testing.assert_close(estimate, target, rtol=0, atol=1e-6)


def test_equals_the_equations_written_out(pair, generator):
    student, teacher, target = Field(1.0), Field(0.9), Field(1.1)
    distance = lambda a, b: (a - b).abs().mean()
    objective = ConsistencySRFlow(hr_weight=0.7, flow_share=0.5, distance_weight=3.0, velocity_weight=0.2)
    times = objective.sample_times(6, generator=generator)
    output = objective(student, pair, teacher=teacher, target=target, times=times, distance=distance)

    column = lambda x: x.to(pair.hr).reshape(-1, 1, 1, 1)
    f = lambda field, z, t: z - column(t) * field(z, t)
    h, low = pair.hr, pair.lr
    s, t = times.s[3:], times.t[3:]
    z_t = (1 - column(t)) * h[3:] + column(t) * low[3:]
    z_s = z_t - column(t - s) * teacher(z_t, t)
    consistency = distance(f(student, z_t, t), f(target, z_s, s))
    # The mean over all rows; where s = 0, f(z, 0) = z has no gradient, and the row counts nothing.
    late = s > 0
    assert 0 < late.sum() < 3  # as this seed draws them
    errors = (f(student, z_s, s) - h[3:]).abs().flatten(1).mean(dim=1)
    regularization = errors[late].sum() / 3
    flow = RectifiedSRFlow(3.0, 0.2)(student, LatentPair(h[:3], low[:3]), times=times.t[:3], distance=distance).loss
    torch.testing.assert_close(output.loss, flow + 3.0 * (consistency + 0.7 * regularization), rtol=1e-6, atol=0)
    torch.testing.assert_close(output.logs["consistency"], 3.0 * consistency.detach(), rtol=1e-6, atol=0)
    ((estimate, truth),) = output.estimates
    torch.testing.assert_close(estimate, f(student, z_s, s)[late], rtol=1e-6, atol=1e-9)
    assert torch.equal(truth, h[3:][late]) and output.x0_target is pair.hr
    assert torch.equal(output.estimate_rows[0], torch.arange(3, 6)[late])


def test_rows_at_the_anchor_have_the_gradient_that_they_had(pair):
    """Leaving the term out at s = 0 changes no gradient: there it had none."""
    s, t = torch.tensor([0.0, 0.1, 0.0, 0.5, 0.25, 0.0]), torch.tensor([0.2, 0.3, 0.1, 0.6, 0.5, 0.25])
    calls = {"teacher": Field(0.9), "target": Field(1.1)}
    student = Field(1.0)
    output = ConsistencySRFlow()(student, pair, times=(s, t), **calls)
    (gradient,) = torch.autograd.grad(output.loss, student.weight)
    column = lambda x: x.to(pair.hr).reshape(-1, 1, 1, 1)
    f = lambda field, z, t: z - column(t) * field(z, t)
    z_t = (1 - column(t)) * pair.hr + column(t) * pair.lr
    z_s = (z_t - column(t - s) * calls["teacher"](z_t, t)).detach()
    all_rows = latent_mse(f(student, z_t, t), f(calls["target"], z_s, s).detach()) + latent_mse(
        f(student, z_s, s), pair.hr
    )
    (expected,) = torch.autograd.grad(all_rows, student.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)
    assert output.loss < all_rows
    assert output.estimate_rows[0].tolist() == [1, 3, 4] and student.calls[0][0] == 6 + 3
    at_zero = ConsistencySRFlow()(student, pair, times=(torch.zeros(6), t), **calls)
    assert at_zero.estimates == () and at_zero.logs["hr_regularisation"] == 0 and student.calls[-1][0] == 6


def test_no_gradient_reaches_teacher_or_target(pair, generator):
    student, teacher, target = Field(1.0), Field(0.9), Field(1.1)
    output = ConsistencySRFlow()(student, pair, teacher=teacher, target=target, generator=generator)
    (output.loss + sum(estimate.sum() for estimate, _ in output.estimates)).backward()
    assert student.weight.grad.abs() > 1e-3
    assert teacher.weight.grad is None and target.weight.grad is None
    assert teacher.calls == [(3, False)] and target.calls == [(3, False)]
    # One pass of the student over all states: 6 on the path, and those of the 3 where the teacher went that are not at s = 0.
    (rows,) = output.estimate_rows
    assert student.calls == [(6 + len(rows), True)] and 0 < len(rows) <= 3


def test_flow_and_consistency_take_different_rows(pair, generator):
    objective = ConsistencySRFlow(flow_share=1 / 3)
    times = objective.sample_times(6, generator=generator)
    assert all(len(one) == 6 for one in times) and times.s.dtype == times.t.dtype == torch.float32
    assert times.flow_rows.tolist() == [True, True, False, False, False, False]
    assert times.s.isfinite().all() and times.t.isfinite().all()


def test_a_share_of_one_sample_is_kept_on_average(generator):
    objective = ConsistencySRFlow(flow_share=0.3)
    flow_rows = [bool(objective.sample_times(1, generator=generator).flow_rows) for _ in range(4_000)]
    assert sum(flow_rows) / 4_000 == pytest.approx(0.3, abs=0.03)


def test_a_batch_in_parts_has_the_loss_of_the_whole(pair, generator):
    """As processes and accumulated steps see it, also where the parts hold different shares of either kind."""
    fields = Field(1.0), {"teacher": Field(0.9), "target": Field(1.1)}
    objective = ConsistencySRFlow(flow_share=0.5)
    times = objective.sample_times(6, generator=generator)
    whole = objective(fields[0], pair, **fields[1], times=times).loss
    for parts in (
        [slice(0, 2), slice(2, 4), slice(4, 6)],
        [slice(i, None, 2) for i in range(2)],
        [[i] for i in range(6)],
    ):
        losses = []
        for rows in parts:
            part = PairedTimes(*(one[rows] for one in times))
            output = objective(fields[0], LatentPair(pair.hr[rows], pair.lr[rows]), **fields[1], times=part)
            losses.append(output.loss)
        torch.testing.assert_close(torch.stack(losses).mean(), whole, rtol=1e-6, atol=0)


def test_a_pair_of_times_trains_consistency_in_every_row(pair, generator):
    times = FastSlowSchedule().sample(6, generator=generator)
    objective = ConsistencySRFlow(hr_weight=0.0)
    output = objective(Field(1.0), pair, teacher=Field(0.9), target=Field(1.1), times=times)
    assert set(output.logs) == {"consistency"}
    torch.testing.assert_close(output.loss.detach(), output.logs["consistency"])


# ---- a toy with a closed form: HR points h, LR points h + d, constant velocity fields ------------------------------


def trained_error(hr_weight: float, flow_share: float, teacher_error: torch.Tensor, steps: int) -> torch.Tensor:
    """The error ``a`` of a student ``v = d + a`` distilled from a teacher ``v = d + e``, by the objective itself."""
    generator = torch.Generator().manual_seed(0)
    d = torch.tensor([1.0, 0.5], dtype=torch.float64).reshape(1, 2, 1, 1)
    e = teacher_error.reshape(1, 2, 1, 1)
    error = torch.zeros_like(e, requires_grad=True)
    constant = lambda v: lambda z, t: v.expand(len(z), -1, -1, -1)
    objective = ConsistencySRFlow(hr_weight=hr_weight, flow_share=flow_share)
    optimizer = torch.optim.SGD([error], lr=2.0)
    average = torch.zeros_like(e)
    for step in range(steps):
        hr = torch.randn(512, 2, 1, 1, generator=generator, dtype=torch.float64)
        roles = {"teacher": constant(d + e), "target": constant(d + error.detach())}
        loss = objective(constant(d + error), LatentPair(hr, hr + d), generator=generator, **roles).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= steps // 2:
            average += error.detach() / (steps - steps // 2)
    return average.flatten()


def predicted_error(hr_weight: float, flow_share: float, teacher_error: torch.Tensor) -> torch.Tensor:
    """The fixed point of the gradients: ``a = e (E[t(t-s)] - w E[s(t-s)]) / (E[t(t-s)] + w E[s^2] + E_flow[t^2])``."""
    s, t = (x.double() for x in FastSlowSchedule().sample(1_000_000, generator=torch.Generator().manual_seed(1)))
    flow = 1 / 3 if flow_share else 0.0  # E[t^2] of uniform times
    gap = (t * (t - s)).mean()
    factor = (gap - hr_weight * (s * (t - s)).mean()) / (gap + hr_weight * s.square().mean() + flow)
    return teacher_error * factor


@pytest.mark.parametrize(("hr_weight", "flow_share"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.5), (1.0, 0.5)])
def test_the_hr_term_keeps_the_student_on_hr(hr_weight, flow_share):
    teacher_error = torch.tensor([0.3, -0.2], dtype=torch.float64)
    found = trained_error(hr_weight, flow_share, teacher_error, 700 if hr_weight or flow_share else 2_500)
    expected = predicted_error(hr_weight, flow_share, teacher_error)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=2e-3)
    if hr_weight == flow_share == 0:  # the student becomes the teacher, error and all
        torch.testing.assert_close(expected, teacher_error)
    if hr_weight:
        assert expected.norm() < 0.1 * teacher_error.norm()


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hr_weight": -1.0}, "hr_weight.*-1.0"),
        ({"flow_share": 1.0}, "flow_share.*1.0"),
        ({"flow_share": -0.5}, "flow_share"),
        ({"target_decay": 1.0}, "target_decay.*1.0"),
        ({"distance_weight": 0.0, "velocity_weight": 1.0}, "distance_weight"),
    ],
)
def test_bad_numbers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConsistencySRFlow(**arguments)


@pytest.mark.parametrize("missing", ["teacher", "target"])
def test_a_missing_role_is_named(pair, missing):
    roles = {"teacher": Field(1.0), "target": Field(1.0), missing: None}
    with pytest.raises(ValueError, match=r"teacher= .*target="):
        ConsistencySRFlow()(Field(1.0), pair, **roles)


@pytest.mark.parametrize(("s", "t"), [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_times_that_are_not_adjacent_are_refused(pair, s, t):
    times = torch.full((6,), 0.25), torch.full((6,), 0.5)
    times[0][2], times[1][2] = s, t
    with pytest.raises(ValueError, match=f"row 2 has s = {s:g}, t = {t:g}"):
        ConsistencySRFlow()(Field(1.0), pair, teacher=Field(1.0), target=Field(1.0), times=times)


def test_the_roles_say_what_they_are():
    assert ConsistencySRFlow(target_decay=0.9).roles == (Role("teacher"), Role("target", decay=0.9))


@pytest.mark.parametrize(
    "times",
    [
        torch.rand(6),
        (torch.rand(6),),
        (torch.rand(5), torch.rand(6)),
        PairedTimes(torch.zeros(6), torch.ones(6), torch.zeros(6)),  # flow_rows are booleans
        PairedTimes(torch.zeros(6), torch.ones(6), torch.zeros(5, dtype=torch.bool)),
        PairedTimes(torch.zeros(6), torch.full((6,), torch.nan), torch.ones(6, dtype=torch.bool)),
        PairedTimes(torch.full((6,), torch.nan), torch.ones(6), torch.zeros(6, dtype=torch.bool)),
    ],
)
def test_times_of_another_kind_are_refused(pair, times):
    with pytest.raises(ValueError, match=r"times|s, t"):
        ConsistencySRFlow()(Field(1.0), pair, teacher=Field(1.0), target=Field(1.0), times=times)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float32, 1e-5)])
def test_other_dtypes_give_the_float64_loss(pair, dtype, tolerance, generator):
    """Paths are computed in float32 at least and rounded once, so bfloat16 latents lose no more than their own rounding."""
    objective = ConsistencySRFlow(velocity_weight=0.5)
    times = objective.sample_times(6, generator=generator)
    fields = [Field(weight) for weight in (1.0, 0.9, 1.1)]

    def loss(kind):
        student, teacher, target = (lambda z, t, f=f: f(z.double(), t).to(kind) for f in fields)
        output = objective(
            student, LatentPair(pair.hr.to(kind), pair.lr.to(kind)), teacher=teacher, target=target, times=times
        )
        assert output.x0_hat.dtype == output.estimates[0][0].dtype == kind
        assert output.loss.dtype == torch.promote_types(kind, torch.float32)
        return float(output.loss.detach())

    assert loss(dtype) == pytest.approx(loss(torch.float64), rel=tolerance)
