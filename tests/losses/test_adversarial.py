import pytest
import torch

from fluxsr.losses import hinge_discriminator_loss, hinge_generator_loss, r1_penalty


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_hinge_values(dtype):
    real = [torch.tensor([[2.0, 0.5], [0.0, -1.0]], dtype=dtype)]
    fake = [torch.tensor([[-2.0, -0.5], [0.0, 1.0]], dtype=dtype)]
    # max(0, 1 - real): 0, .5, 1, 2; max(0, 1 + fake): 0, .5, 1, 2
    assert hinge_discriminator_loss(real, fake) == pytest.approx(2 * 3.5 / 4)
    assert hinge_generator_loss(fake) == pytest.approx(1.5 / 4)


def test_a_discriminator_that_knows_nothing_pays_two_and_a_sure_one_nothing():
    zeros, ones = [torch.zeros(3, 7)], [torch.ones(3, 7)]
    assert hinge_discriminator_loss(zeros, zeros) == 2
    assert hinge_discriminator_loss(ones, [-ones[0]]) == 0


def test_heads_count_alike_whatever_their_number_of_tokens():
    few, many = torch.full((2, 1), 3.0), torch.full((2, 100), 1.0)
    assert hinge_generator_loss([few, many]) == -2


def test_r1_of_a_linear_head_is_half_its_squared_weight(generator):
    weight = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    features = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty([features @ weight], [features])
    # Each of the four tokens has the gradient `weight`.
    torch.testing.assert_close(penalty, (4 * weight.square().sum() / 2).float(), check_dtype=False)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 4 * weight.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("logits", "named"), [([], "no head"), (torch.zeros(3, 1), "list")])
def test_no_head_and_a_bare_tensor_are_refused(logits, named):
    with pytest.raises(ValueError, match=named):
        hinge_generator_loss(logits)
