"""Folded models against the whole ones they were made from, to the last bit where that is promised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fluxsr.flows import euler
from fluxsr.models import (
    FluxBackbone,
    PromptEmbedding,
    compile_blocks,
    flux_architecture,
    fold_modulation,
    fuse_lora,
    load_flux,
)
from fluxsr.models.families import FLUX1
from fluxsr.models.folded import Folded
from fluxsr.models.prompts import no_prompt
from fluxsr.models.tiling import TiledVelocity
from tests.models.conftest import both_families, perturb, tiny_prompt, tiny_transformer

T = 0.3  # no power of two: its float32 is not the float64 of the same name
# Attention and MLP, and what folding takes away: the modulation linears and the embedders before them.
ADAPTED = {
    "flux.1": ["to_q", "to_out.0", "proj_mlp", "add_k_proj", "norm1.linear", "norm.linear", "norm_out.linear", "linear_2"],
    "flux.2": ["to_q", "to_out.0", "to_qkv_mlp_proj", "add_k_proj", "double_stream_modulation_img.linear",
               "double_stream_modulation_txt.linear", "single_stream_modulation.linear", "norm_out.linear", "linear_2"],
}  # fmt: skip


def tiny_backbone(
    tokens: int = 3, guidance: float | None = None, lora: bool = False, family: str = "flux.1", **changes
) -> FluxBackbone:
    transformer = tiny_transformer(family=family, guidance_embeds=guidance is not None, **changes)
    backbone = FluxBackbone(transformer, tiny_prompt(tokens, family), guidance)
    if lora:
        backbone.add_lora(rank=2, targets=ADAPTED[family])
        perturb(backbone)
    return backbone


def state(batch: int = 1, channels: int = 4):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, channels, 8, 12, generator=generator), torch.full((batch,), T)


def distance(a, b) -> float:
    """The relative error in the root mean square."""
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("guidance", [None, 3.5])
@pytest.mark.parametrize("lora", [False, True])
@both_families
@torch.no_grad()
def test_one_image_gives_the_same_bits(dtype, tokens, guidance, lora, family):
    whole = tiny_backbone(tokens, guidance, lora, family)
    whole.transformer.to(dtype)
    folded = fold_modulation(whole, T, fuse=False)
    assert torch.equal(folded(*state()), whole(*state()))
    assert not [name for name, _ in folded.named_parameters() if whole.family.modulation.match(name)]


@pytest.mark.parametrize("name", ["nano", "nano-student", "nano-flowsr"])
@pytest.mark.parametrize("lora", [False, True])
@torch.no_grad()
def test_the_shipped_models_give_the_same_bits(name, lora):
    whole = load_flux(name, trainable="lora" if lora else "none", lora_rank=4)
    perturb(whole)
    folded = fold_modulation(whole, T, fuse=False)
    assert torch.equal(folded(*state(channels=48)), whole(*state(channels=48)))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("tokens", [0, 3])
@both_families
@torch.no_grad()
def test_batches_and_a_fused_adapter_differ_by_rounding(batch, tokens, family):
    whole = tiny_backbone(tokens, 3.5, lora=True, family=family)
    assert distance(fold_modulation(whole, T, fuse=False)(*state(batch)), whole(*state(batch))) < 1e-5
    assert distance(fold_modulation(whole, T, fuse=True)(*state(batch)), whole(*state(batch))) < 1e-5
    assert distance(fuse_lora(whole)(*state(batch)), whole(*state(batch))) < 1e-5
    base = whole.as_role(None)(*state(batch))
    assert distance(base, whole(*state(batch))) > 1e-2  # the adapter is worth fusing


@torch.no_grad()
def test_in_bfloat16_folding_costs_less_than_bfloat16_does():
    exact, half = tiny_backbone(lora=True), tiny_backbone(lora=True)
    half.transformer.to(torch.bfloat16)
    expected = exact(*state(4))
    rounding = distance(half(*state(4)), expected)
    for fuse in (False, True):
        assert distance(fold_modulation(half, T, fuse=fuse)(*state(4)), half(*state(4))) < rounding


def parameters(transformer, wanted=lambda name: True) -> int:
    return sum(parameter.numel() for name, parameter in transformer.named_parameters() if wanted(name))


def test_what_flux_dev_loses():
    with torch.device("meta"):
        from diffusers import FluxTransformer2DModel

        config = flux_architecture("flux.1-dev")
        whole = FluxTransformer2DModel(**config)
        prompt = PromptEmbedding(torch.zeros(1, 8, 4096), torch.zeros(1, 768))
        folded = fold_modulation(FluxBackbone(whole, prompt, 3.5)).transformer
        textless = fold_modulation(FluxBackbone(whole, guidance=3.5)).transformer
    blocks = parameters(whole, lambda name: bool(FLUX1.modulation.match(name)) and not name.startswith("norm_out"))
    last = parameters(whole, lambda name: name.startswith("norm_out.linear"))
    embedders = parameters(whole, lambda name: name.startswith("time_text_embed"))
    assert parameters(whole) == 11_901_408_320
    assert blocks == 3_228_567_552 and last == 18_880_512 and embedders == 32_262_144
    assert parameters(folded) == 11_901_408_320 - blocks - last - embedders == 8_621_698_112
    constants = sum(buffer.numel() for name, buffer in folded.named_buffers() if name.endswith(".value"))
    assert constants == 3072 * (19 * 12 + 38 * 3 + 2)
    text = parameters(
        whole, lambda name: any(part in name for part in (".add_", "to_add_", "ff_context", "context_emb"))
    )
    assert parameters(textless) == parameters(folded) - text == 6_456_908_864


@pytest.mark.parametrize(
    ("name", "with_text", "without"),
    [("flux.2-klein-4b", 0.044, 0.208), ("flux.2-klein-9b", 0.033, 0.231), ("flux.2-dev", 0.022, 0.147)],
)
def test_what_flux2_loses(name, with_text, without):
    guidance = 4.0 if name == "flux.2-dev" else None
    with torch.device("meta"):
        whole = load_flux(name, trainable="none", guidance=guidance)
        textless = fold_modulation(whole).transformer
        whole.set_prompt(no_prompt(whole.transformer.config, tokens=8))
        folded = fold_modulation(whole).transformer
    sizes = [parameters(model) / parameters(whole.transformer) for model in (folded, textless)]
    assert sizes == pytest.approx([1 - with_text, 1 - without], abs=5e-4)


def test_the_pages_first_example_runs():
    page = Path(__file__).parents[2] / "docs" / "folding.md"
    example = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(example[1], {})


def test_the_given_backbone_stays_as_it_was():
    whole = tiny_backbone(lora=True)
    before = {name: (p.data_ptr(), p.requires_grad, p.clone()) for name, p in whole.named_parameters()}
    folded = fold_modulation(whole, T, fuse=True)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    plain = {name.replace(".base_layer", ""): pointer for name, (pointer, _, _) in before.items()}
    shared = [name for name, parameter in folded.named_parameters() if parameter.data_ptr() == plain[name]]
    assert len(shared) > len(list(folded.parameters())) / 2  # all but the fused
    for name, parameter in whole.named_parameters():
        pointer, trained, values = before[name]
        assert (parameter.data_ptr(), parameter.requires_grad) == (pointer, trained) and torch.equal(parameter, values)
    whole(*state()).square().mean().backward()
    assert all(p.grad is not None for name, p in whole.named_parameters() if ".lora_B" in name)


@torch.no_grad()
def test_an_adapter_kept_apart_is_not_made_anew():
    """The folded model shares the layers of the whole one, and peft knows of no adapter in it."""
    backbone = tiny_backbone(lora=True)
    before = {name: tensor.clone() for name, tensor in backbone.adapters.state_dict("student").items()}
    folded = fold_modulation(backbone, T, fuse=False)
    with pytest.raises(ValueError, match="'student'"):
        folded.add_lora(rank=3)
    with pytest.raises(ValueError, match="'nobody'"):
        backbone.adapters.copy("nobody", "other")
    after = backbone.adapters.state_dict("student")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_adapter_kept_apart_follows_its_role():
    whole = tiny_backbone(lora=True)
    folded = fold_modulation(whole, T, fuse=False)
    expected = whole(*state())
    whole.as_role(None)(*state())
    assert torch.equal(folded(*state()), expected)
    # The constants have the student's share; the linears don't without the role.
    assert not torch.equal(folded.as_role(None)(*state()), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(state()[0], torch.tensor([0.31])), "t = 0.3, got 0.31"),
        (lambda f: f(state(2)[0], torch.tensor([T, 0.9])), r"t = 0.3, got 0.9"),
        (lambda f: euler(f, state()[0], T, 0.0, 2), "folded at t = 0.3, got 0.15"),
        (lambda f: FluxBackbone(f.transformer, guidance=2.0), "guidance = 3.5, got 2.0"),
        (
            lambda f: FluxBackbone(f.transformer, tiny_prompt()._replace(pooled_prompt_embeds=torch.ones(1, 12))),
            "a photo",
        ),
        (lambda f: FluxBackbone(f.transformer, tiny_prompt(2)), "a photo"),
        (lambda f: f.transformer(**diffusers_call(f, guidance=torch.tensor([2.0]))), "guidance = 3.5, got 2;"),
        (lambda f: f.transformer(**diffusers_call(f, pooled_projections=torch.ones(1, 12))), "a photo"),
        (lambda f: fold_modulation(f, T, fuse=True), "already, at t = 0.3"),
        (lambda f: fold_modulation(tiny_backbone(), 1.5), r"t must lie in \[0, 1\]"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(fold_modulation(tiny_backbone(guidance=3.5), T, fuse=True))


def diffusers_call(backbone: FluxBackbone, **changes) -> dict:
    """The arguments of a plain diffusers call that the guard accepts, with some of them changed."""
    return {
        "hidden_states": torch.zeros(1, 4, 16),
        "encoder_hidden_states": backbone.prompt_embeds,
        "pooled_projections": backbone.pooled_prompt_embeds,
        "timestep": torch.tensor([T]),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
        **changes,
    }


def test_the_guard_accepts_its_own_conditions():
    folded = fold_modulation(tiny_backbone(guidance=3.5), T, fuse=True)
    assert folded.transformer(**diffusers_call(folded)).sample.isfinite().all()
    again = FluxBackbone(folded.transformer, tiny_prompt(), 3.5)
    assert torch.equal(again(*state()), folded(*state()))
    assert torch.equal(again(state()[0], torch.tensor([T], dtype=torch.float64)), folded(*state()))


@torch.no_grad()
def test_one_step_in_tiles():
    whole = tiny_backbone()
    folded = fold_modulation(whole, T, fuse=True)
    x = state()[0].repeat(1, 1, 3, 2)
    expected = euler(TiledVelocity(whole, 8, 4), x, T, 0.0, 1)
    assert torch.equal(euler(TiledVelocity(folded, 8, 4), x, T, 0.0, 1), expected)


@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("guidance", [None, 3.5])
@both_families
@torch.no_grad()
def test_through_a_file_and_a_folder(tmp_path, tokens, guidance, family):
    folded = fold_modulation(tiny_backbone(tokens, guidance, lora=True, family=family), T, fuse=True)
    expected = folded(*state())
    folded.save(tmp_path / "folded.safetensors")
    folded.transformer.save_pretrained(tmp_path / "folder", max_shard_size="20KB")
    for source in ("folded.safetensors", "folder"):
        loaded = load_flux(str(tmp_path / source), trainable="none")
        assert isinstance(loaded.transformer, Folded)
        assert (loaded.guidance, loaded.prompt_text, loaded.text_tokens) == (guidance, "a photo", tokens)
        assert torch.equal(loaded(*state()), expected)
        with pytest.raises(ValueError, match=r"folded at t = 0.3, got 0.25"):
            loaded(state()[0], torch.tensor([0.25]))


def test_a_folded_model_can_be_trained_at_its_time(tmp_path):
    student = fold_modulation(tiny_backbone(), T, fuse=True)
    student.add_lora(rank=2)
    perturb(student)
    student(*state()).square().mean().backward()
    adapters = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert adapters and all(".lora_" in name and parameter.grad.norm() > 0 for name, parameter in adapters.items())
    with torch.no_grad():
        assert distance(fuse_lora(student)(*state()), student(*state())) < 1e-5
    with pytest.raises(ValueError, match="not supported"):
        student.add_lora("other", rank=2, targets=["norm.linear"])


# ---- compiling -------------------------------------------------------------------------------------------------


@pytest.mark.torch("2.11")
@torch.no_grad()
def test_compiled_blocks_are_compiled_once_per_kind():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    folded = fold_modulation(tiny_backbone(num_layers=4, num_single_layers=4), T, fuse=True)
    expected = folded(*state())
    assert compile_blocks(folded, backend=backend, fullgraph=True) is folded
    assert torch.equal(folded(*state()), expected)
    # One double-stream, one single-stream, and this once more: its first input is joined, the others are views.
    assert len(graphs) == 3
    with pytest.raises(ValueError, match="folded at t"):
        folded(state()[0], torch.tensor([0.5]))


@pytest.mark.torch("2.11")
@torch.no_grad()
def test_compiled_blocks_still_change_roles():
    torch._dynamo.reset()
    backbone = tiny_backbone(lora=True)
    expected = [backbone.as_role(role)(*state()) for role in ("student", None, "student")]
    compile_blocks(backbone, backend="eager")
    for role, velocity in zip(("student", None, "student"), expected, strict=True):
        assert torch.equal(backbone.as_role(role)(*state()), velocity)
