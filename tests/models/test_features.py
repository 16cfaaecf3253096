import pytest
import torch

from fluxsr.models import FeatureTap, FluxBackbone
from tests.models.conftest import both_families, perturb, tiny_prompt, tiny_transformer


def collect(checkpointing=False, lora=False, autocast=False, compiled=False, family="flux.1", tokens=0):
    transformer, prompt = tiny_transformer(family=family), tiny_prompt(tokens, family)
    backbone = FluxBackbone.from_transformer(transformer, prompt, gradient_checkpointing=checkpointing)
    if lora:
        backbone.add_lora(rank=2)
        perturb(backbone)
    tap = FeatureTap(backbone)
    if compiled:
        backbone.transformer.compile_repeated_blocks(backend="aot_eager")
    generator = torch.Generator().manual_seed(1)
    xt, t = torch.randn(2, 4, 8, 12, generator=generator), torch.rand(2, generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        backbone(xt, t)  # a pass that nobody asked for
        with tap.record() as features:
            backbone(xt, t)
    loss = sum(feature.float().square().mean() for feature in features)
    loss.backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    return features, gradients, tap, backbone


@both_families
@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_one_feature_per_layer_image_tokens_only(family, tokens, batch):
    """What leaves the last block is what the last norm and projection make the velocity of, text tokens left out."""
    backbone = FluxBackbone.from_transformer(tiny_transformer(family=family), tiny_prompt(tokens, family))
    generator = torch.Generator().manual_seed(1)
    seen = []
    backbone.transformer.norm_out.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with FeatureTap(backbone).record() as features, torch.no_grad():
        backbone(torch.randn(batch, 4, 8, 12, generator=generator), torch.rand(batch, generator=generator))
    assert [tuple(feature.shape) for feature in features] == [(batch, 24, 32)] * 4
    assert torch.equal(features[-1], seen[0])


@both_families
@pytest.mark.parametrize("lora", [False, True])
def test_checkpointing_changes_neither_values_nor_gradients(lora, family):
    plain, plain_gradients, _, _ = collect(lora=lora, family=family, tokens=3)
    recomputed, gradients, _, _ = collect(checkpointing=True, lora=lora, family=family, tokens=3)
    assert len(recomputed) == 4  # the recomputation in backward() added nothing
    for a, b in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert plain_gradients.keys() == gradients.keys()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-8)


def test_autocast():
    features, gradients, _, _ = collect(lora=True, autocast=True)
    assert len(features) == 4
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("checkpointing", "family"),
    [(False, "flux.1"), (True, "flux.1"), pytest.param(True, "flux.2", marks=pytest.mark.slow)],
)
def test_compiled_blocks(checkpointing, family):
    plain, plain_gradients, _, _ = collect(lora=True, family=family)
    compiled, gradients, _, _ = collect(lora=True, compiled=True, checkpointing=checkpointing, family=family)
    assert len(compiled) == 4
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6)


def test_chosen_layers_and_removal():
    backbone = FluxBackbone.from_transformer(tiny_transformer())
    tap = FeatureTap(backbone, layers=[0, -1])
    with tap.record() as features:
        backbone(torch.zeros(1, 4, 8, 8), torch.zeros(1))
    assert len(features) == 2
    tap.remove()
    with tap.record() as features:
        backbone(torch.zeros(1, 4, 8, 8), torch.zeros(1))
    assert not features


def test_errors():
    with pytest.raises(ValueError, match="layer 4 does not exist: the model has 4 blocks"):
        FeatureTap(tiny_transformer(), layers=[4])
    with pytest.raises(ValueError, match="Linear has no transformer_blocks and single_transformer_blocks"):
        FeatureTap(torch.nn.Linear(2, 2))
