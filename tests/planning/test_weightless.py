from __future__ import annotations

import json

import pytest
import torch

from fluxsr.losses import DISTSLoss, LPIPSLoss
from fluxsr.models import FLUX_ARCHITECTURES, PromptEmbedding, load_autoencoder, load_flux
from fluxsr.planning.weightless import architecture, weightless
from tests.models.conftest import TINY, tiny_prompt


def test_flux1_dev_by_its_hub_id_and_nothing_is_real():
    with weightless():
        backbone = load_flux(
            "black-forest-labs/FLUX.1-dev", guidance=3.5, dtype="bfloat16", prompt="missing.safetensors"
        )
    assert all(parameter.is_meta for parameter in backbone.parameters())
    assert backbone.text_tokens == 512
    assert sum(p.numel() for n, p in backbone.named_parameters() if ".lora_" not in n) == 11_901_408_320
    assert {p.dtype for n, p in backbone.named_parameters() if ".lora_" not in n} == {torch.bfloat16}


def test_flux1s_autoencoder():
    with weightless():
        autoencoder = load_autoencoder("black-forest-labs/FLUX.1-schnell", subfolder="vae")
    assert (autoencoder.latent_channels, autoencoder.downsample) == (16, 8)
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == 83_819_683


def test_perceptual_networks_have_their_real_sizes():
    with weightless():
        assert sum(p.numel() for p in LPIPSLoss(net="vgg").parameters()) == 14_714_688  # VGG16 without its classifier
        assert sum(p.numel() for p in DISTSLoss().parameters()) >= 14_714_688


def test_a_local_folder_needs_its_config_only(tmp_path):
    (tmp_path / "transformer").mkdir()
    config = {"_class_name": "FluxTransformer2DModel", "guidance_embeds": False, **TINY}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    with weightless():
        backbone = load_flux(str(tmp_path), lora_rank=2)
    assert len(backbone.transformer.transformer_blocks) == TINY["num_layers"]


def test_a_prompt_file_counts_by_its_own_tokens_unless_told_otherwise(tmp_path):
    path = tmp_path / "prompt.safetensors"
    tiny_prompt(tokens=3).save(path)
    (tmp_path / "config.json").write_text(json.dumps({"guidance_embeds": False, **TINY}))
    for asked, expected in ((None, 3), (7, 7)):
        with weightless(text_tokens=asked):
            assert load_flux(str(tmp_path), prompt=str(path)).text_tokens == expected


def test_an_adapter_that_is_not_there_yet_has_the_given_rank():
    with weightless(lora_rank=5):
        backbone = load_flux("nano", lora_weights="missing.safetensors", teacher_lora="missing.safetensors")
    assert backbone.adapters.names == ["student", "teacher"]
    assert {p.shape[0] for n, p in backbone.named_parameters() if ".lora_A." in n} == {5}


@pytest.mark.parametrize("source", ["somebody/unknown-model", "missing.safetensors"])
def test_an_architecture_that_is_not_known_is_an_error_that_says_what_to_do(source):
    with pytest.raises(ValueError, match=rf"{source}.*(give|plan with)"):
        architecture(source)


def test_afterwards_the_loaders_load_again():
    with weightless():
        pass
    assert architecture("nano") == {**FLUX_ARCHITECTURES["nano"], **architecture("nano")}
    assert not any(parameter.is_meta for parameter in load_flux("nano").parameters())
    with pytest.raises(ValueError, match="does not exist"):
        PromptEmbedding.load("missing.safetensors")
