"""What is asked of a family, against diffusers' own pipelines."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from fluxsr.flows import resolution_shift
from fluxsr.models import (
    FLUX_ARCHITECTURES,
    FluxBackbone,
    PixelAutoencoder,
    flux_architecture,
    fold_modulation,
    load_autoencoder,
    load_flux,
)
from fluxsr.models.families import FLUX1, FLUX2, family_of, family_of_model, from_diffusers
from fluxsr.models.families.family import pack
from fluxsr.models.prompts import encode_prompt
from tests.conftest import ROOT
from tests.models.conftest import both_families, perturb, tiny_prompt, tiny_transformer

# As the model cards and diffusers' conversion state them, in 1e9.
EXACT = {"flux.1-dev": 11_901_408_320, "flux.1-schnell": 11_891_178_560}
PUBLISHED = {"flux.1": 11.9, "flux.2-dev": 32.2, "klein-4b": 3.88, "klein-base-4b": 3.88, "9b": 9.08}


@pytest.mark.parametrize("name", [name for name in FLUX_ARCHITECTURES if not name.startswith("nano")])
def test_every_architecture_has_the_published_size(name):
    guidance = 3.5 if FLUX_ARCHITECTURES[name]["guidance_embeds"] else None
    backbone = load_flux(name, guidance=guidance, trainable="none", device="meta")
    size = next(size for part, size in PUBLISHED.items() if part in name)
    assert sum(parameter.numel() for parameter in backbone.parameters()) / 1e9 == pytest.approx(size, rel=2e-3)
    if name in EXACT:
        assert sum(parameter.numel() for parameter in backbone.parameters()) == EXACT[name]
    assert name.startswith(backbone.family.name.lower())
    vae = load_autoencoder(f"black-forest-labs/{name}", subfolder="vae", device="meta")
    assert vae.latent_channels == backbone.latent_channels and vae.downsample == 8


def test_nano_is_small_and_works_on_the_pixel_autoencoders_latents():
    backbone = load_flux("nano", weights=False, trainable="full")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 2_499_008
    assert backbone.latent_channels == PixelAutoencoder().latent_channels
    with pytest.raises(ValueError, match=r"flux.2.*flux.1-dev"):
        flux_architecture("flux.2")


@both_families
def test_a_model_and_its_configuration_are_of_one_family(family):
    transformer = tiny_transformer(family=family)
    expected = {"flux.1": FLUX1, "flux.2": FLUX2}[family]
    assert family_of_model(transformer) is family_of(dict(transformer.config)) is expected
    assert family_of({"_class_name": expected.transformer}) is expected


@pytest.mark.parametrize(
    "name", ["ChromaTransformer2DModel", "QwenImageTransformer2DModel", "Flux3Transformer2DModel", None]
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_folder_of_another_class_is_refused(tmp_path, name, device):
    config = {"in_channels": 16} if name is None else {"_class_name": name, "in_channels": 16, "num_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{name or 'without a class name'}'.*FLUX.1 .*, FLUX.2") as caught:
        load_flux(str(tmp_path), device=device)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_transformer_that_is_no_velocity_is_refused():
    from diffusers import ChromaTransformer2DModel

    with torch.device("meta"):
        chroma = ChromaTransformer2DModel(num_layers=1, num_single_layers=1)
    with pytest.raises(ValueError, match="ChromaTransformer2DModel"):
        FluxBackbone(chroma)
    with pytest.raises(ValueError, match=r"24 channels a token and makes 16"):
        FluxBackbone(tiny_transformer(in_channels=24, out_channels=16))


def test_a_pipeline_of_another_kind_encodes_no_prompt(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ChromaPipeline"}))
    with pytest.raises(ValueError, match=r"ChromaPipeline.*FluxPipeline"):
        encode_prompt("x", str(tmp_path))


def test_an_older_diffusers_is_named():
    with pytest.raises(ValueError, match=r"FLUX.9 needs diffusers 9.1"):
        from_diffusers("Flux9", "9.1", "FLUX.9")


@pytest.mark.parametrize(("shape", "named"), [((1, 4, 7, 8), "7x8"), ((4, 8, 8), r"\(4, 8, 8\)")])
def test_latents_that_are_no_whole_tokens_are_refused(shape, named):
    with pytest.raises(ValueError, match=named):
        pack(torch.zeros(shape))


@pytest.mark.parametrize("steps", [4, 28, 50])
@pytest.mark.parametrize("side", [256, 512, 1024, 1328])
def test_the_sampling_grid_is_shifted_as_published(side, steps):
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    tokens = (side // 16) ** 2
    assert FLUX1.shift(tokens, steps) == pytest.approx(resolution_shift(tokens))
    assert FLUX2.shift(tokens, steps) == pytest.approx(math.exp(compute_empirical_mu(tokens, steps)))


def test_the_adapter_of_another_family_is_refused_by_name(tmp_path):
    files = {}
    for family in ("flux.1", "flux.2"):
        backbone = FluxBackbone(tiny_transformer(family=family))
        backbone.add_lora(rank=2)
        files[family] = backbone.save_lora(tmp_path / f"{family}.safetensors")
    with pytest.raises(ValueError, match=r"was made for FLUX.1, and this is a FLUX.2"):
        FluxBackbone(tiny_transformer(family="flux.2")).load_lora(files["flux.1"])
    with pytest.raises(ValueError, match=r"was made for FLUX.2, and this is a FLUX.1"):
        FluxBackbone(tiny_transformer()).load_lora(files["flux.2"])


def test_no_other_file_asks_which_family_it_is():
    """A family is one class: a third one is written there, and nowhere else is one named."""
    named = re.compile(r"\bFLUX[12]\b|\bFlux[12]\b|id_columns|lora_loader ==|\.name == \"FLUX")
    known = [ROOT / "fluxsr/models" / name for name in ("families", "folded.py")]
    for path in sorted((ROOT / "fluxsr").rglob("*.py")):
        if not any(path.is_relative_to(one) for one in known):
            assert not named.search(path.read_text(encoding="utf-8")), path


# ---- leaving the text stream out -------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("autocast", [False, True])
def test_without_its_text_stream_a_model_gives_the_same_bits(tmp_path, state, family, autocast):
    tiny_transformer(family=family).save_pretrained(tmp_path / "model")
    whole, less = (load_flux(str(tmp_path / "model"), lora_rank=2, text_stream=keep) for keep in (True, False))
    for backbone in (whole, less):
        perturb(backbone)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(less(*state), whole(*state))
    sizes = [sum(parameter.numel() for parameter in backbone.parameters()) for backbone in (whole, less)]
    assert sizes[1] < 0.85 * sizes[0]
    less(*state).square().mean().backward()
    assert all(p.grad.norm() > 0 for p in less.parameters() if p.requires_grad)
    file = less.save_lora(tmp_path / "adapter.safetensors")
    again = load_flux(str(tmp_path / "model"), lora_weights=str(file))
    assert torch.equal(again(*state), whole(*state))


@both_families
def test_without_its_text_stream_a_model_takes_no_prompt(tmp_path, family):
    tiny_prompt(3, family).save(tmp_path / "prompt.safetensors")
    tiny_transformer(family=family).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="can't be left out: the prompt has 3 tokens"):
        load_flux(str(tmp_path / "model"), prompt=str(tmp_path / "prompt.safetensors"), text_stream=False)
    less = load_flux(str(tmp_path / "model"), text_stream=False, trainable="full")
    with pytest.raises(ValueError, match="loaded without its text stream, and the prompt has 3 tokens"):
        less.set_prompt(tiny_prompt(3, family))
    with pytest.raises(ValueError, match="has no text stream and lacks the layers themselves"):
        less.save(tmp_path / "whole.safetensors")


# ---- the authors' own names ------------------------------------------------------------------------------------


def test_diffusers_own_converter_gives_the_weights_back():
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    with torch.device("meta"):  # the converter knows FLUX.1's own width alone
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    # Each weight holds a number of its own, in a byte; the last modulation has two, for its halves change places.
    state = {}
    for number, (key, tensor) in enumerate(model.state_dict().items()):
        state[key] = torch.tensor(number % 120, dtype=torch.int8).expand(tensor.shape)
    half = len(state["norm_out.linear.bias"]) // 2
    state["norm_out.linear.bias"] = torch.arange(2, dtype=torch.int8).repeat_interleave(half)
    written = FLUX1.original_names(state)
    assert "single_blocks.0.linear1.weight" in written and "final_layer.adaLN_modulation.1.weight" in written
    back = convert_flux_transformer_checkpoint_to_diffusers(written)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_rows_of_joined_matrices_keep_their_order():
    state = tiny_transformer().state_dict()
    joined = FLUX1.original_names(state)["double_blocks.1.txt_attn.qkv.weight"]
    names = ("add_q_proj", "add_k_proj", "add_v_proj")
    parts = [state[f"transformer_blocks.1.attn.{name}.weight"] for name in names]
    assert all(torch.equal(one, part) for one, part in zip(joined.chunk(3), parts, strict=True))


def test_what_has_no_such_names_is_refused():
    adapted = load_flux("nano", trainable="lora", lora_rank=2)
    with pytest.raises(ValueError, match="base_layer"):
        FLUX1.original_names(adapted.transformer.state_dict())
    folded = fold_modulation(load_flux("nano", trainable="none"), t=0.25)
    with pytest.raises(ValueError, match="layout"):
        FLUX1.original_names(folded.transformer.state_dict())
