from types import SimpleNamespace

import pytest
import torch

from fluxsr.flows import euler, expand_times, linear_path
from fluxsr.flows.paths import velocity_at


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ends_are_exact(dtype, generator):
    x0, x1 = torch.randn(2, 3, 4, 4, 4, generator=generator).to(dtype)
    assert torch.equal(linear_path(x0, x1, torch.zeros(3)), x0)
    assert torch.equal(linear_path(x0, x1, torch.ones(3)), x1)
    assert linear_path(x0, x1, torch.full((3,), 0.5)).dtype == dtype


def test_velocity_is_the_derivative(generator):
    x0, x1 = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    difference = (linear_path(x0, x1, t + 1e-4) - linear_path(x0, x1, t - 1e-4)) / 2e-4
    torch.testing.assert_close(difference, x1 - x0, rtol=0, atol=1e-9)


def test_bfloat16_latents_keep_float32_times(generator):
    # 0.501 and 0.5 are the same bfloat16 number; the path must still tell them apart.
    t = torch.tensor([0.501, 0.5])
    assert expand_times(t, torch.zeros(2, 1, 1, 1, dtype=torch.bfloat16)).dtype == torch.float32
    x1 = torch.full((2, 1, 1, 1), 1000.0, dtype=torch.bfloat16)
    state = linear_path(torch.zeros_like(x1), x1, torch.tensor([0.504, 0.5]))
    assert state[0] != state[1]


def test_errors_name_the_shapes():
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"times must have shape \(2,\).*got \(3,\)"):
        linear_path(x, x, torch.zeros(3))
    with pytest.raises(ValueError, match=r"one shape: x0 \(2, 1, 4, 4\), x1 \(2, 1, 4, 5\)"):
        linear_path(x, torch.zeros(2, 1, 4, 5), torch.zeros(2))
    with pytest.raises(ValueError, match=r"x0 must be a floating-point tensor, got torch.uint8"):
        linear_path(x.byte(), x.byte(), torch.zeros(2))
    with pytest.raises(ValueError, match=r"times must be a tensor .* got 0.5: torch.full\(\(batch,\), 0.5\)"):
        linear_path(x, x, 0.5)
    with pytest.raises(ValueError, match=r"x1 must be a tensor of latents .* got ndarray"):
        linear_path(x, x.numpy(), torch.zeros(2))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (SimpleNamespace(sample=torch.zeros(2, 1, 4, 4)), r"SimpleNamespace.*sample"),
        ((torch.zeros(2, 1, 4, 4),), r"tuple.*\[0\]"),
        (None, "NoneType"),
        (torch.zeros(2, 1, 4, 5), r"shape \(2, 1, 4, 5\) for a state of shape \(2, 1, 4, 4\)"),
        (torch.zeros(()), r"shape \(\) for a state"),
    ],
)
def test_what_a_velocity_model_must_not_return(returned, message):
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=message):
        velocity_at(lambda xt, t: returned, x, torch.zeros(2))
    with pytest.raises(ValueError, match=message):
        euler(lambda xt, t: returned, x, 1.0, 0.0, 1)
