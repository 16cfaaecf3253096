import itertools
import math

import pytest
import torch

from fluxsr.flows import euler


def growth(xt, t):
    """dx/dt = x: the solution is exp(t)."""
    return xt


def test_first_order_is_measured():
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = [abs(float(euler(growth, x, 0.0, 1.0, n)) - math.e) for n in (32, 64, 128, 256)]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(slope - 1) < 0.05 for slope in slopes), slopes


def test_time_dependent_field():
    # dx/dt = 2t from 1 to 0 changes x by -1; Euler's left-end sum is exact up to 1/n.
    x = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    result = euler(lambda xt, t: 2 * t.double().reshape(-1, 1, 1, 1).expand_as(xt), x, 1.0, 0.0, 1000)
    torch.testing.assert_close(result, torch.full_like(x, -1.0), rtol=0, atol=1.1e-3)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_straight_field_is_exact_in_any_number_of_steps(shift, generator):
    x0, x1 = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for steps in (1, 2, 7):
        torch.testing.assert_close(euler(lambda xt, t: x1 - x0, x1, 1.0, 0.0, steps, shift=shift), x0)
        torch.testing.assert_close(euler(lambda xt, t: x1 - x0, x0, 0.0, 1.0, steps, shift=shift), x1)


def test_the_model_sees_the_shifted_grid():
    seen = []
    euler(lambda xt, t: seen.append(float(t[0])) or xt, torch.zeros(1, 1, 1, 1), 1.0, 0.0, 4, shift=3.0)
    assert seen == pytest.approx([1.0, 0.9, 0.75, 0.5])


def test_gradients_flow():
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    euler(growth, x, 0.0, 1.0, 2).sum().backward()
    assert float(x.grad) == pytest.approx(1.5**2)


def test_errors():
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        euler(growth, x, 1.0, 0.0, 0)
    with pytest.raises(ValueError, match=r"t_start must lie in \[0, 1\].*got 1.5"):
        euler(growth, x, 1.5, 0.0, 1)
