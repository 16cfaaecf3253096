import re
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxsr.models import FluxBackbone, StudentRecord, load_flux
from tests.models.conftest import both_families, perturb, tiny_prompt, tiny_transformer


def by_hand(transformer, xt, t, prompt=None, guidance=None):
    """The velocity as FluxPipeline computes it, with the pipeline's own helpers."""
    from diffusers import FluxPipeline

    batch, channels, height, width = xt.shape
    embeds = torch.zeros(batch, 0, 24) if prompt is None else prompt.prompt_embeds.expand(batch, -1, -1)
    pooled = torch.zeros(batch, 12) if prompt is None else prompt.pooled_prompt_embeds.expand(batch, -1)
    tokens = transformer(
        hidden_states=FluxPipeline._pack_latents(xt, batch, channels, height, width),
        timestep=t,
        guidance=None if guidance is None else torch.full((batch,), guidance),
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32),
        txt_ids=torch.zeros(embeds.shape[1], 3),
    ).sample
    return FluxPipeline._unpack_latents(tokens, height * 8, width * 8, vae_scale_factor=8)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("guidance", [None, 3.5])
def test_velocity_is_the_pipelines_own(state, text, guidance):
    transformer = tiny_transformer(guidance_embeds=guidance is not None)
    prompt = tiny_prompt() if text else None
    velocity = FluxBackbone.from_transformer(transformer, prompt, guidance)(*state)
    torch.testing.assert_close(velocity, by_hand(transformer, *state, prompt, guidance))


def test_bfloat16_weights_give_a_float32_velocity(state):
    full = FluxBackbone.from_transformer(tiny_transformer())(*state)
    half = FluxBackbone.from_transformer(tiny_transformer().to(torch.bfloat16))(*state)
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < 0.05


@both_families
def test_lora_starts_as_the_base_and_trains_alone(backbone, state):
    before = backbone(*state)
    backbone.add_lora(rank=2)
    torch.testing.assert_close(backbone(*state), before, rtol=0, atol=0)
    perturb(backbone)
    backbone(*state).square().mean().backward()
    for name, parameter in backbone.named_parameters():
        if ".lora_" in name:
            assert parameter.grad.isfinite().all() and parameter.grad.norm() > 0, name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name


@both_families
def test_text_adapters_exist_only_where_there_is_text(state, family):
    names = {}
    for tokens in (0, 3):
        backbone = FluxBackbone.from_transformer(tiny_transformer(family=family), tiny_prompt(tokens, family))
        backbone.add_lora(rank=2)
        perturb(backbone)
        backbone(*state).square().mean().backward()
        adapters = {name: parameter for name, parameter in backbone.named_parameters() if ".lora_" in name}
        assert all(parameter.grad.norm() > 0 for parameter in adapters.values())
        names[tokens] = {name for name in adapters if re.search("add_[qkv]_proj|ff_context|to_add", name)}
    assert not names[0]
    assert len(names[3]) == 2 * 2 * (3 + 1 + 2)  # two blocks; A and B; add_[qkv]_proj, to_add_out, two of ff_context


def test_a_model_without_a_text_stream_gets_adapters_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for targets in (None, ["to_q"]):
            FluxBackbone.from_transformer(tiny_transformer(num_layers=0)).add_lora(rank=2, targets=targets)


def three_passes(checkpointing: bool, family: str):
    """Gradients of a student pass, a no-grad teacher pass, a student pass and one that goes *through* the teacher."""
    backbone = FluxBackbone.from_transformer(tiny_transformer(family=family), gradient_checkpointing=checkpointing)
    backbone.add_lora("student", rank=2)
    backbone.add_lora("teacher", rank=2, trainable=False)
    perturb(backbone)
    generator = torch.Generator().manual_seed(1)
    xt, t = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, generator=generator)
    first = backbone(xt, t)
    with torch.no_grad():
        target = backbone.as_role("teacher")(xt, t)
    second = backbone.as_role("student")(xt + first, t)
    judged = backbone.as_role("teacher")(second, t)
    base = backbone.as_role(None)(first, t)
    ((second - target).square().mean() + judged.square().mean() + base.square().mean()).backward()
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    frozen = {name: parameter.grad for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    return gradients, frozen


@both_families
def test_roles_keep_their_gradients_with_and_without_checkpointing(family):
    plain, frozen = three_passes(False, family)
    assert plain and all(".student." in name and gradient.norm() > 0 for name, gradient in plain.items())
    assert all(gradient is None for gradient in frozen.values())
    recomputed, frozen = three_passes(True, family)
    assert all(gradient is None for gradient in frozen.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7)


@both_families
def test_roles_are_different_models_on_one_base(backbone, state):
    base = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    plain = backbone(*state)
    backbone.add_lora("student", rank=2)
    backbone.add_lora("teacher", rank=2, trainable=False)
    perturb(backbone)
    outputs = [backbone.as_role(role)(*state) for role in ("student", "teacher", None)]
    assert torch.equal(outputs[2], plain)
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[0], plain)
    now = {name.replace(".base_layer", ""): p for name, p in backbone.named_parameters() if ".lora_" not in name}
    assert all(torch.equal(now[name], parameter) for name, parameter in base.items())


def test_choosing_a_role_leaves_requires_grad_alone(backbone, state):
    backbone.add_lora("student", rank=2)
    backbone.add_lora("teacher", rank=2, trainable=False)
    before = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    loss = backbone(*state).square().mean()
    backbone.as_role("teacher")(*state)
    loss.backward()  # with peft's set_adapter this would give exactly zero gradient
    assert {name: parameter.requires_grad for name, parameter in backbone.named_parameters()} == before
    assert any(p.grad is not None and p.grad.norm() > 0 for n, p in backbone.named_parameters() if "student" in n)


def test_the_adapter_loads_in_plain_diffusers(tmp_path, state):
    backbone = FluxBackbone.from_transformer(tiny_transformer())
    backbone.add_lora(rank=2, alpha=6.0)  # a scale of 3 must survive the file, which has no place for it
    perturb(backbone)
    expected = backbone(*state)
    backbone.save_lora(tmp_path)
    plain = tiny_transformer()
    plain.load_lora_adapter(str(tmp_path / "pytorch_lora_weights.safetensors"), prefix="transformer")
    torch.testing.assert_close(by_hand(plain, *state), expected, rtol=1e-5, atol=1e-5)


def test_a_foreign_adapter_is_refused(tmp_path):
    backbone = FluxBackbone.from_transformer(tiny_transformer())
    backbone.add_lora(rank=2)
    file = backbone.save_lora(tmp_path / "adapter.safetensors")
    save_file(load_file(file), file)  # as other programs write it, without a word on its base
    deeper = FluxBackbone.from_transformer(tiny_transformer(num_single_layers=1))
    with pytest.raises(ValueError, match=r"adapts .*another base"):
        deeper.load_lora(file)
    wider = FluxBackbone.from_transformer(tiny_transformer(num_attention_heads=4))
    with pytest.raises(ValueError, match="does not fit"):
        wider.load_lora(file)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors"):
        backbone.load_lora(tmp_path / "other.safetensors", "more")


@both_families
def test_a_trained_transformer_goes_through_a_file(tmp_path, state, backbone):
    file = backbone.save(tmp_path / "model.safetensors", record=StudentRecord(trained="x"))
    loaded = load_flux(str(file), trainable="none")
    assert torch.equal(loaded(*state), backbone(*state))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_local_diffusers_folder_loads(tmp_path, state):
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path / "alone")
    transformer.save_pretrained(tmp_path / "pipeline" / "transformer")
    expected = by_hand(transformer, *state)
    for folder in ("alone", "pipeline"):
        backbone = load_flux(str(tmp_path / folder), trainable="none")
        torch.testing.assert_close(backbone(*state), expected, rtol=0, atol=0)


def test_a_prompt_is_read_from_its_file(tmp_path, state):
    tiny_transformer().save_pretrained(tmp_path / "model")
    tiny_prompt().save(tmp_path / "prompt.safetensors")
    backbone = load_flux(str(tmp_path / "model"), prompt=str(tmp_path / "prompt.safetensors"), lora_rank=2)
    assert backbone.text_tokens == 3 and backbone.prompt_text == "a photo"
    expected = by_hand(tiny_transformer(), *state, tiny_prompt())
    torch.testing.assert_close(backbone(*state), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FluxBackbone(tiny_transformer(guidance_embeds=True)), "give guidance"),
        (lambda: FluxBackbone(tiny_transformer(), guidance=3.5), "guidance is 3.5"),
        (
            lambda: FluxBackbone(tiny_transformer(joint_attention_dim=16), tiny_prompt()),
            r"prompt has widths \(24, 12\), the model wants \(16, 12\)",
        ),
        (lambda: FluxBackbone(tiny_transformer()).add_lora(rank=0), "got 0"),
        (lambda: FluxBackbone(tiny_transformer()).as_role("ghost"), "no adapter 'ghost'; there are: none"),
        (lambda: load_flux("flux.1-dev"), "flux.1-dev.*weights=False"),
        (lambda: load_flux("nano", weights=False, trainable="some"), "some"),
        (lambda: load_flux("missing.safetensors"), "missing.safetensors"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_latents_are_named(backbone):
    with pytest.raises(ValueError, match=r"must have shape \(B, 4, h, w\), got \(1, 3, 8, 8\)"):
        backbone(torch.zeros(1, 3, 8, 8), torch.zeros(1))


def test_an_unreachable_hub_id_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="nobody/nothing"):
        load_flux("nobody/nothing")


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "cut.safetensors"
    FluxBackbone(tiny_transformer()).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut.safetensors is damaged or no safetensors file"):
        load_flux(str(file))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not name its architecture"):
        load_flux(str(tmp_path / "other.safetensors"))
