import pytest
import torch

from fluxsr.flows import FlowMatching, LatentPair, UniformTimes


def test_oracle_is_zero_and_lands_on_the_data(generator):
    hr, noise = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    output = FlowMatching()(lambda xt, t: noise - hr, LatentPair(hr, noise=noise), generator=generator)
    assert output.loss < 1e-12
    torch.testing.assert_close(output.x0_hat, hr, rtol=0, atol=1e-7)  # times are float32
    assert output.x0_target is hr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_is_the_velocity_error(dtype, generator):
    hr, noise, v = torch.randn(3, 3, 4, 8, 8, generator=generator, dtype=dtype)
    loss = FlowMatching()(lambda xt, t: v, LatentPair(hr, noise=noise), generator=generator).loss
    torch.testing.assert_close(loss, (v - (noise - hr)).square().mean(), rtol=1e-6, atol=0)


def test_the_model_is_called_on_the_path(generator):
    hr, noise = torch.randn(2, 2, 1, 4, 4, generator=generator)
    times = torch.tensor([0.25, 0.75])
    seen = {}
    FlowMatching()(lambda xt, t: seen.update(xt=xt, t=t) or xt, LatentPair(hr, noise=noise), times=times)
    weight = times.reshape(2, 1, 1, 1)
    assert torch.equal(seen["xt"], (1 - weight) * hr + weight * noise)
    assert torch.equal(seen["t"], times)


def test_sampling_a_point_mass_is_exact(generator):
    # The exact velocity of data that is one constant image, for any noise: (xt - hr) / t.
    hr = torch.randn(1, 1, 4, 4, generator=generator)
    field = lambda xt, t: (xt - hr) / t.reshape(-1, 1, 1, 1)
    noise = torch.randn(2, 1, 4, 4, generator=generator)
    torch.testing.assert_close(FlowMatching(shift=3.0).restore(field, noise, 20), hr.expand(2, -1, -1, -1))


def test_times_come_from_the_sampler():
    times = [FlowMatching(UniformTimes(shift=2.0)).sample_times(5, generator=torch.Generator().manual_seed(1))]
    times.append(UniformTimes(shift=2.0)(5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(*times)


def test_errors():
    with pytest.raises(ValueError, match=r"needs LatentPair.noise, which is None"):
        FlowMatching()(lambda xt, t: xt, LatentPair(torch.zeros(1, 1, 2, 2)))
    with pytest.raises(ValueError, match="shift must be positive"):
        FlowMatching(shift=-1)
