"""What every loss with a frozen network promises, on small networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxsr.losses import LPIPSLoss, TVLPIPSLoss
from fluxsr.losses.network import FrozenNetwork


class Tiny(nn.Module):
    """Called as lpips.LPIPS is."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gap = self.drop(torch.tanh(self.conv(x)) - torch.tanh(self.conv(y)))
        return gap.square().mean((1, 2, 3)).view(-1, 1, 1, 1)


def gradient(loss: nn.Module, pair: tuple[Tensor, Tensor], **kwargs) -> Tensor:
    image = pair[0].clone().requires_grad_()
    return torch.autograd.grad(loss(image, pair[1]), image, **kwargs)[0]


def test_gradient_inside_equals_plain_autograd(pair) -> None:
    inside, plain = TVLPIPSLoss(net=Tiny()), TVLPIPSLoss(net=Tiny(), double_backward=True)
    torch.testing.assert_close(inside(*pair), plain(*pair))
    torch.testing.assert_close(gradient(inside, pair), gradient(plain, pair), rtol=1e-5, atol=1e-9)


def test_gradient_is_scaled_by_what_comes_from_outside(pair) -> None:
    loss = TVLPIPSLoss(net=Tiny())
    image = pair[0].clone().requires_grad_()
    (3 * loss(image, pair[1]) + image.mean()).backward()
    expected = 3 * gradient(loss, pair) + 1 / image.numel()
    torch.testing.assert_close(image.grad, expected)


@pytest.mark.parametrize("double_backward", [False, True])
def test_only_the_sr_image_gets_a_gradient(double_backward: bool, pair) -> None:
    sr_image, hr_image = (image.clone().requires_grad_() for image in pair)
    TVLPIPSLoss(net=Tiny(), double_backward=double_backward)(sr_image, hr_image).backward()
    assert hr_image.grad is None


def test_under_autocast_values_and_gradients_stay_float32(pair) -> None:
    loss = TVLPIPSLoss(net=Tiny())
    expected, expected_gradient = loss(*pair), gradient(loss, pair)
    for frozen in (loss, TVLPIPSLoss(net=Tiny(), double_backward=True)):
        with torch.autocast("cpu", torch.bfloat16):
            value, found = frozen(*pair), gradient(frozen, pair)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(found, expected_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_of_other_dtypes(dtype: torch.dtype, pair) -> None:
    loss = TVLPIPSLoss(net=Tiny())
    image = pair[0].to(dtype).requires_grad_()
    value = loss(image, pair[1].to(dtype))
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert image.grad.dtype == dtype
    torch.testing.assert_close(value.float(), loss(*pair), rtol=0.05, atol=1e-4)


def test_a_network_handed_over_in_bfloat16_stays_so_and_its_loss_is_float32(pair) -> None:
    loss = TVLPIPSLoss(net=Tiny().bfloat16())
    image = pair[0].clone().requires_grad_()
    value = loss(image, pair[1])
    assert loss.network.dtype == torch.bfloat16
    assert value.dtype == loss(*pair).dtype == torch.float32
    assert torch.autograd.grad(value, image)[0].dtype == torch.float32


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck_holds_of_a_loss_as_it_comes(reduction: str, pair) -> None:
    images = [image[:, :, :5, :5].double() for image in pair]
    for loss in (TVLPIPSLoss(net=Tiny(), reduction=reduction), TVLPIPSLoss(net=Tiny(), reduction=reduction).double()):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, images[1]), (images[0].requires_grad_(),))


def test_vmap_and_a_hessian_go_through_it(pair) -> None:
    loss = LPIPSLoss(net=Tiny())
    each = torch.func.vmap(lambda x, y: loss(x[None], y[None]))(*pair)
    torch.testing.assert_close(each, LPIPSLoss(net=Tiny(), reduction="none")(*pair))
    small = [image[0, :, :4, :4] for image in pair]
    curvature = torch.func.hessian(lambda x: loss(x[None], small[1][None]))(small[0])
    assert curvature.shape == (3, 4, 4, 3, 4, 4) and curvature.abs().sum() > 0


def test_a_second_derivative_is_refused_or_exact(pair) -> None:
    with pytest.raises(RuntimeError, match="double_backward=True"):
        gradient(TVLPIPSLoss(net=Tiny()), pair, create_graph=True)
    loss = LPIPSLoss(net=Tiny().double(), double_backward=True)
    image = pair[0][:1, :, :5, :5].double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: loss(x, pair[1][:1, :, :5, :5].double()), (image,))


def test_no_gradient_is_computed_where_none_is_asked_for(pair) -> None:
    with torch.no_grad():
        assert not TVLPIPSLoss(net=Tiny())(pair[0].clone().requires_grad_(), pair[1]).requires_grad
    assert not TVLPIPSLoss(net=Tiny())(*pair).requires_grad


def test_moving_to_a_device_moves_the_network() -> None:
    frozen = FrozenNetwork(Tiny()).to("meta")
    assert all(p.is_meta for p in frozen.parameters())


def test_a_checkpoint_that_does_carry_the_weights_still_loads() -> None:
    loss = LPIPSLoss(net=Tiny())
    before = loss.network.net.conv.weight.clone()
    state = {f"network.net.{name}": value.bfloat16() for name, value in loss.network.net.state_dict().items()}
    for assign in (False, True):
        loss.load_state_dict({**state, "network.net.of_another": torch.zeros(1)}, strict=True, assign=assign)
        assert torch.equal(loss.network.net.conv.weight, before)
        assert not any(p.requires_grad for p in loss.requires_grad_(True).parameters())


def test_user_errors_name_the_value(pair) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x - y).square().flatten()

    with pytest.raises(ValueError, match=r"\(B, 1, 1, 1\)"):
        TVLPIPSLoss(net=Wrong())(*pair)
