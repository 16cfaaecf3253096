"""The modulation table against the whole model that it was made from."""

from __future__ import annotations

import copy

import pytest
import torch

from fluxsr.flows import FlowTrajectoryDistillation, GridTimes, LatentPair
from fluxsr.models import FluxBackbone, fold_modulation, fuse_lora, tabulate_modulation
from tests.models.conftest import perturb, tiny_prompt, tiny_transformer

OBJECTIVE = FlowTrajectoryDistillation(0.3, time_sampler=GridTimes(5))  # 0.3's float32 is not its float64


def pair_of_models(dtype=torch.float32, tokens: int = 3, guidance: float | None = 3.5, **arguments):
    """A whole model with a LoRA, and its tabulated twin."""
    transformer = tiny_transformer(guidance_embeds=guidance is not None)
    whole = FluxBackbone(transformer.to(dtype), tiny_prompt(tokens), guidance, **arguments)
    whole.add_lora(rank=2)
    perturb(whole)
    twin = FluxBackbone(
        tiny_transformer(guidance_embeds=guidance is not None).to(dtype), tiny_prompt(tokens), guidance, **arguments
    )
    twin.add_lora(rank=2)
    perturb(twin)
    tabulate_modulation(twin, OBJECTIVE.time_grid())
    return whole, twin


def noise(batch: int, seed: int = 0):
    return torch.randn(batch, 4, 8, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "guidance"), [(0, None), (3, 3.5)])
@torch.no_grad()
def test_on_the_grid_one_image_has_the_same_bits(dtype, tokens, guidance):
    whole, twin = pair_of_models(dtype, tokens, guidance)
    for t in OBJECTIVE.time_grid():
        assert torch.equal(twin(noise(1), t[None]), whole(noise(1), t[None])), float(t)


def test_a_batch_of_several_times_agrees_to_rounding_with_its_gradients():
    whole, twin = pair_of_models(gradient_checkpointing=True)
    times = OBJECTIVE.time_grid()[[0, 3, 3, 1]]
    outputs = [model(noise(4), times) for model in (whole, twin)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    ours = dict(twin.named_parameters())
    for name, parameter in whole.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 0, name
            torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-4)


def test_recomputation_uses_the_times_of_its_own_pass():
    _, plain = pair_of_models()
    _, checkpointed = pair_of_models(gradient_checkpointing=True)
    early, late = OBJECTIVE.time_grid()[[0]], OBJECTIVE.time_grid()[[4]]
    gradients = []
    for model in (plain, checkpointed):
        first = model(noise(1), early)
        model(noise(1, seed=1), late)  # chooses other rows before the first pass is recomputed
        first.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(b, a)


def test_the_objective_only_asks_for_times_in_the_table():
    _, twin = pair_of_models(tokens=0, guidance=None)
    generator = torch.Generator().manual_seed(0)
    hr, lr, eps = torch.randn(3, 4, 4, 8, 12, generator=generator)
    for _ in range(8):
        OBJECTIVE(twin, LatentPair(hr, lr, eps), generator=generator).loss.backward()


def test_another_time_is_refused():
    _, twin = pair_of_models()
    with pytest.raises(ValueError, match=r"no row for t = 0\.31, only for 5 times from 0\.3 to 1"):
        twin(noise(2), torch.tensor([0.3, 0.31]))
    with pytest.raises(ValueError, match="no row for t = 0,"):
        twin(noise(1), torch.zeros(1))


def test_the_layers_are_gone():
    whole, twin = pair_of_models()
    count = lambda model: sum(p.numel() for p in model.parameters())
    d = 32  # two double blocks of 2 x 6, two single of 3, norm_out of 2
    modulation = (2 * 2 * 6 + 2 * 3 + 2) * (d * d + d)
    assert count(whole) - count(twin) == modulation + sum(
        p.numel() for p in whole.transformer.time_text_embed.parameters()
    )
    table = sum(b.numel() for name, b in twin.named_buffers() if "values" in name)
    assert table == 5 * (2 * 2 * 6 + 2 * 3 + 2) * d


def test_adapters_of_a_table_load_into_the_whole_model(tmp_path):
    whole, twin = pair_of_models()
    twin.save(tmp_path / "a.safetensors")
    fresh = FluxBackbone(tiny_transformer(guidance_embeds=True), tiny_prompt(3), 3.5)
    fresh.load_lora(tmp_path / "a.safetensors")
    fresh.default_role = "student"
    torch.testing.assert_close(fresh(noise(1), torch.tensor([0.3])), whole(noise(1), torch.tensor([0.3])))


@pytest.mark.parametrize("target", ["norm1.linear", "norm.linear", "norm_out.linear", "linear_2"])
def test_adapted_modulation_is_refused(target):
    backbone = FluxBackbone(tiny_transformer())
    backbone.add_lora(rank=2, targets=["to_q", target])
    with pytest.raises(ValueError, match=r"is an adapter, so its outputs are no constants.*leaves norm\*\.linear"):
        tabulate_modulation(backbone, OBJECTIVE.time_grid())


def test_trained_folded_and_tabulated_models_are_refused():
    backbone = FluxBackbone(tiny_transformer())
    with pytest.raises(ValueError, match="is trained, so its outputs are no constants"):
        tabulate_modulation(backbone, OBJECTIVE.time_grid())
    backbone.requires_grad_(False)
    with pytest.raises(ValueError, match="constants already"):
        tabulate_modulation(fold_modulation(copy.deepcopy(backbone), 0.3), OBJECTIVE.time_grid())
    tabulate_modulation(backbone, OBJECTIVE.time_grid())
    with pytest.raises(ValueError, match="constants already"):
        tabulate_modulation(backbone, OBJECTIVE.time_grid())
    for refused in (lambda: fold_modulation(backbone, 0.3), lambda: fuse_lora(backbone)):
        with pytest.raises(ValueError, match="has a modulation table, made for training"):
            refused()
    with pytest.raises(ValueError, match="only its adapters can be saved"):
        backbone.save("never.safetensors")
