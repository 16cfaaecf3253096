import pytest
import torch

from fluxsr.losses import r1_penalty
from fluxsr.models import FluxBackbone, LatentDiscriminator
from tests.models.conftest import perturb, tiny_transformer


@pytest.fixture
def latents(generator):
    return torch.randn(2, 4, 8, 8, generator=generator)


@pytest.fixture
def shared(backbone):
    backbone.add_lora(rank=2)
    perturb(backbone)
    return LatentDiscriminator(backbone, width=8)


def test_one_logit_per_token_and_layer(shared, latents):
    logits = shared(latents)
    assert [tuple(one.shape) for one in logits] == [(2, 16)] * 4
    assert len(LatentDiscriminator(FluxBackbone(tiny_transformer()), layers=[0, -1])(latents)) == 2


def test_only_the_heads_are_its_own_where_the_base_is_shared(shared):
    names = {name for name, _ in shared.named_parameters()}
    assert names and all(name.startswith("heads.") for name in names)
    # (32 + 1) * 8 + (8 + 1) weights per head: kilobytes.
    assert sum(parameter.numel() for parameter in shared.parameters()) == 4 * (33 * 8 + 9)


def test_the_features_are_the_bases_whatever_the_adapter(backbone, latents):
    plain = LatentDiscriminator(FluxBackbone(tiny_transformer()), width=8).features(latents)
    backbone.add_lora(rank=2)
    discriminator = LatentDiscriminator(backbone, width=8)
    perturb(backbone)
    for feature, expected in zip(discriminator.features(latents), plain, strict=True):
        torch.testing.assert_close(feature, expected)


def test_a_fully_trained_backbone_is_judged_by_what_it_was(latents):
    backbone = FluxBackbone(tiny_transformer())
    discriminator = LatentDiscriminator(backbone, width=8)
    before = discriminator.features(latents)
    with torch.no_grad():
        backbone.transformer.x_embedder.weight.mul_(2)
    for feature, expected in zip(discriminator.features(latents), before, strict=True):
        assert torch.equal(feature, expected)
    trained = {name for name, parameter in discriminator.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in discriminator.named_parameters() if name.startswith("heads.")}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_generators_gradient_goes_through_the_frozen_base_into_the_adapter(latents, checkpointing):
    """design.md's two traps: a zero gradient, or, under checkpointing, one recomputed with the wrong adapter."""
    backbone = FluxBackbone(tiny_transformer(), gradient_checkpointing=checkpointing)
    backbone.add_lora(rank=2)
    perturb(backbone)
    discriminator = LatentDiscriminator(backbone, width=8)
    torch.manual_seed(1)
    for parameter in discriminator.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    time = torch.full((2,), 0.5)
    fake = latents - backbone(latents, time)
    logits = discriminator.judge(discriminator.features(fake), frozen=True)
    torch.stack(logits).mean().backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert all(gradient.norm() > 0 for gradient in gradients.values())

    # The same through a separate copy of the base, where there is nothing to confuse.
    apart = LatentDiscriminator(FluxBackbone(tiny_transformer()), width=8)
    apart.heads.load_state_dict(discriminator.heads.state_dict())
    backbone.zero_grad()
    torch.stack(apart(latents - backbone(latents, time))).mean().backward()
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_r1_by_the_features_trains_the_heads(shared, latents):
    with torch.no_grad():
        features = shared.features(latents)
    features = [feature.requires_grad_() for feature in features]
    r1_penalty(shared.judge(features), features).backward()
    weights = [parameter for name, parameter in shared.heads.named_parameters() if name.endswith("weight")]
    assert all(weight.grad.norm() > 0 for weight in weights)


def test_bad_numbers_are_named(backbone):
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        LatentDiscriminator(backbone, width=0)
    with pytest.raises(ValueError, match=r"time must lie in \[0, 1\], got 2; 0 is the data end"):
        LatentDiscriminator(backbone, time=2)
    with pytest.raises(ValueError, match="layer 9 does not exist: the model has 4 blocks"):
        LatentDiscriminator(backbone, layers=[9])
