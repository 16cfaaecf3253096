from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.losses.lpips_net import LPIPSNet, head_distance


@pytest.mark.parametrize("name", ["vgg", "alex", "squeeze"])
def test_equals_the_package_in_value_and_gradient(name: str, random_lpips, pair: tuple[Tensor, Tensor]) -> None:
    reference, path = random_lpips(name)
    net = LPIPSNet.load(name, path)
    ours, theirs = (pair[0].clone().requires_grad_() for _ in range(2))
    value = net(ours * 2 - 1, pair[1] * 2 - 1)
    expected = reference(theirs * 2 - 1, pair[1] * 2 - 1)
    assert value.shape == (2, 1, 1, 1)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    value.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * float(theirs.grad.abs().max()))


def test_squeezenet_gives_the_value_that_torchmetrics_documents(backbones) -> None:
    generator = torch.Generator().manual_seed(42)
    x = torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1
    y = torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1
    distances = LPIPSNet.load("squeeze", backbones)(x, y).flatten()
    torch.testing.assert_close(distances, torch.tensor([0.1024, 0.0938]), rtol=0, atol=5e-5)


def test_gradient_computed_inside_equals_finite_differences_and_the_plain_form() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    head = torch.rand(5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: head_distance(x, y, head), (x,))
    torch.testing.assert_close(head_distance(x, y, head), head_distance(x, y, head, double_backward=True))
    assert torch.autograd.gradgradcheck(lambda x: head_distance(x, y, head, double_backward=True), (x,))


@pytest.mark.parametrize("double_backward", [False, True])
def test_all_zero_features_have_a_finite_gradient(double_backward: bool) -> None:
    # ReLU maps are all zero at some pixels; a plain square root has no finite slope there.
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    head_distance(x, torch.ones(1, 4, 2, 2), torch.ones(4), double_backward=double_backward).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_both_images_may_carry_a_gradient(random_lpips, pair: tuple[Tensor, Tensor]) -> None:
    net = LPIPSNet.load("squeeze", random_lpips("squeeze")[1])
    x, y = (image.clone().requires_grad_() for image in pair)
    net(x, y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert y.grad.abs().sum() > 0


def test_user_errors_name_the_value(random_lpips) -> None:
    net = LPIPSNet.load("squeeze", random_lpips("squeeze")[1])
    with pytest.raises(ValueError, match=r"at least 17 pixels.*\(1, 3, 8, 8\)"):
        net(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
