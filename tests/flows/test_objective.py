from types import SimpleNamespace

import pytest
import torch

from fluxsr.flows import (
    ConsistencySRFlow,
    FlowMatching,
    FlowObjective,
    FlowOutput,
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
    roles = dict.fromkeys((role.name for role in objective.roles), lambda xt, t: torch.zeros_like(xt))
    return lambda velocity, pair, **options: objective(velocity, pair, **roles, **options)


def test_a_velocity_that_is_no_tensor_is_named(call, pair):
    with pytest.raises(ValueError, match=r"the velocity model returned a tuple.*\[0\]"):
        call(lambda xt, t: (xt,), pair)
    with pytest.raises(ValueError, match=r"returned a SimpleNamespace.*\.sample"):
        call(lambda xt, t: SimpleNamespace(sample=xt), pair)


@pytest.mark.parametrize("times", [[0.5, float("nan")], [0.5, -0.1], [0.5, 1.1], [0.5, float("inf")], [0.5] * 3])
def test_times_that_are_none_are_refused(call, pair, times):
    times = torch.tensor(times)
    with pytest.raises(ValueError, match=r"times|s, t"):
        call(lambda xt, t: xt, pair, times=times)
    with pytest.raises(ValueError, match=r"times|s, t"):
        call(lambda xt, t: xt, pair, times=(torch.zeros(2), times))


def test_only_an_image_distance_is_handed_photos(call, pair):
    seen = []

    class OnPhotos:
        def __call__(self, a, b):
            return (a - b).square().mean()

        def to_photos(self, estimate, hr_image):
            seen.append(hr_image)
            return estimate.square().mean()

    generator = lambda: torch.Generator().manual_seed(0)
    photos = torch.rand(2, 3, 64, 64)
    with_photos = pair._replace(hr_image=photos)
    plain = [call(lambda xt, t: xt, one, generator=generator()).loss for one in (pair, with_photos)]
    assert torch.equal(*plain)
    assert torch.equal(call(lambda xt, t: xt, pair, distance=OnPhotos(), generator=generator()).loss, plain[0])
    assert not seen
    call(lambda xt, t: xt, with_photos, distance=OnPhotos(), generator=generator())
    assert seen and all((row == photos).flatten(1).all(dim=1).any() for image in seen for row in image)


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


def test_what_is_no_latent_pair_is_told_how_to_become_one(call, pair):
    with pytest.raises(ValueError, match=r"takes a LatentPair\(hr, lr, noise\), got a dict: LatentPair\(\*\*pair\)"):
        call(lambda xt, t: torch.zeros_like(xt), pair._asdict())
    with pytest.raises(ValueError, match=r"got a Tensor$"):
        call(lambda xt, t: torch.zeros_like(xt), pair.hr)
    with pytest.raises(ValueError, match=r"hr must be a tensor of latents .* got ndarray"):
        call(lambda xt, t: torch.zeros_like(xt), pair._replace(hr=pair.hr.numpy()))


class Shuffled(FlowObjective):
    """Uses the rows that it is told to, and says so or not."""

    start_time = 1.0

    def __init__(self, used, rows) -> None:
        super().__init__()
        self.used, self.rows = used, rows

    def sample_times(self, batch_size, *, generator=None):
        return torch.rand(batch_size, generator=generator)

    def restore(self, velocity, start, steps=1):
        return start

    def forward(self, velocity, pair, **options):
        hr, lr = pair.check("lr")
        x0_hat = velocity(lr[self.used], torch.ones(len(self.used)))
        return FlowOutput((x0_hat - hr[self.used]).square().mean(), x0_hat, hr[self.used], rows=self.rows)


def test_an_objective_that_permutes_rows_must_say_so(pair):
    used = torch.tensor([1, 0])
    zero = lambda xt, t: torch.zeros_like(xt)
    assert torch.equal(Shuffled(used, used)(zero, pair).rows, used)
    for wrong in (None, torch.tensor([1]), torch.tensor([1, 2]), torch.tensor([-1, 0]), used.float(), [1, 0]):
        with pytest.raises(ValueError, match="rows"):
            Shuffled(used, wrong)(zero, pair)


def test_rows_of_another_order_than_the_target_are_refused(pair):
    class Contradicting(Shuffled):
        def forward(self, velocity, pair, **options):
            return super().forward(velocity, pair)._replace(x0_target=pair.hr)

    zero, order = (lambda xt, t: torch.zeros_like(xt)), torch.tensor([0, 1])
    assert Contradicting(order, order)(zero, pair).x0_target is pair.hr
    with pytest.raises(ValueError, match=r"return pair\.hr\[rows\]"):
        Contradicting(order.flip(0), order.flip(0))(zero, pair)


def test_forward_must_return_a_flow_output(pair):
    class Bare(Shuffled):
        def forward(self, velocity, pair, **options):
            return pair.hr.mean()

    with pytest.raises(ValueError, match="FlowOutput"):
        Bare(None, None)(lambda xt, t: xt, pair)


def test_a_pair_is_checked_in_one_place(pair):
    assert pair.check() == (pair.hr,)
    hr, noise = pair.check("noise")
    assert hr is pair.hr and noise is pair.noise
    broken = pair.lr.clone()
    broken[1, 0, 0, 0] = torch.inf
    for wrong in (pair._replace(lr=None), pair._replace(lr=pair.lr[..., :4]), pair._replace(lr=broken)):
        with pytest.raises(ValueError, match="lr"):
            wrong.check("lr")
        wrong.check("noise")  # what is not asked for is not looked at
