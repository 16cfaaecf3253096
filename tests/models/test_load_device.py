"""Loaders take the device; on meta they read no weight and ask no network."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from fluxsr.models import FluxBackbone, PromptEmbedding, load_autoencoder, load_flux
from fluxsr.models.devices import check_torch
from tests.models.conftest import TINY, tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def asked(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)


def devices(module):
    return {tensor.device.type for tensor in (*module.parameters(), *module.buffers())}


def architecture(backbone):
    return {key: value for key, value in backbone.transformer.config.items() if key in TINY}


def test_a_hub_id_is_known_by_name():
    backbone = load_flux(
        "black-forest-labs/FLUX.1-dev", guidance=3.5, trainable="none", dtype="bfloat16", device="meta"
    )
    assert devices(backbone) == {"meta"} and backbone.dtype == torch.bfloat16
    autoencoder = load_autoencoder("black-forest-labs/FLUX.1-dev", subfolder="vae", device="meta")
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == 83_819_683
    assert load_autoencoder("madebyollin/taef1", device="meta").latent_channels == 16


def test_the_default_device_is_torchs():
    with torch.device("meta"):
        backbone = load_flux("nano", teacher_lora="not-there-yet.safetensors")
    assert devices(backbone) == {"meta"} and devices(load_flux("nano")) == {"cpu"}
    with torch.device("meta"):
        assert devices(load_flux("nano", device="cpu")) == {"cpu"}


def test_every_local_layout_needs_no_weights(tmp_path):
    backbone = FluxBackbone(tiny_transformer())
    backbone.save(tmp_path / "one.safetensors")
    for folder in (tmp_path / "alone", tmp_path / "pipeline" / "transformer"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel", **TINY}))
    for name in ("one.safetensors", "alone", "pipeline"):
        loaded = load_flux(str(tmp_path / name), device="meta", lora_rank=2)
        assert architecture(loaded) == TINY and devices(loaded) == {"meta"}
    tiny_kl().save_pretrained(tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert devices(load_autoencoder(str(tmp_path / "pipeline"), device="meta")) == {"meta"}


def test_files_to_come_are_assumed_and_others_give_their_shapes(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    base = str(tmp_path / "base")
    later = load_flux(base, prompt="later.safetensors", lora_weights="later.safetensors", lora_rank=5, device="meta")
    assert later.text_tokens == 512 and later.adapters.layers[0].r["student"] == 5
    tiny_prompt(7).save(tmp_path / "prompt.safetensors")
    there = FluxBackbone(tiny_transformer())
    there.add_lora(rank=3)
    there.save_lora(tmp_path / "lora.safetensors")
    files = {"prompt": str(tmp_path / "prompt.safetensors"), "teacher_lora": str(tmp_path / "lora.safetensors")}
    found = load_flux(base, **files, device="meta")
    assert found.text_tokens == 7 and found.adapters.layers[0].r["teacher"] == 3
    assert devices(later) == devices(found) == {"meta"}


def test_another_prompt_goes_where_the_old_one_was():
    backbone = load_flux("nano", device="meta")
    backbone.set_prompt(PromptEmbedding(torch.zeros(1, 9, 16), torch.zeros(1, 16), "nine"))
    assert backbone.text_tokens == 9 and backbone.prompt_embeds.is_meta and backbone.prompt.text == "nine"
    with pytest.raises(ValueError, match="the prompt has widths"):
        backbone.set_prompt(tiny_prompt())
    backbone.set_prompt(None)
    assert backbone.text_tokens == 0 and backbone.prompt_embeds.is_meta


def test_an_adapter_is_drawn_alike_wherever_the_default_device_is():
    backbones = []
    for device in ("cpu", "meta"):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            with torch.device(device):
                backbones.append(load_flux("nano", device="cpu"))
    for ours, theirs in zip(*(backbone.parameters() for backbone in backbones), strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_not_known_without_a_network_is_said(tmp_path):
    for load in (load_flux, load_autoencoder):
        with pytest.raises(ValueError, match="'some/thing' is not known without a network"):
            load("some/thing", device="meta")
    with pytest.raises(ValueError, match=r"later.safetensors does not exist"):
        load_flux("later.safetensors", device="meta")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ChromaTransformer2DModel"}))
    for device in ("meta", "cpu"):
        with pytest.raises(ValueError, match=r"ChromaTransformer2DModel'.* supported: FLUX.1 .*, FLUX.2"):
            load_flux(str(tmp_path), device=device)


def test_a_feature_that_torch_is_too_old_for_is_refused(monkeypatch):
    check_torch("2.6", "something")
    monkeypatch.setattr(torch, "__version__", "2.10.1+cpu")
    check_torch("2.10", "something")
    with pytest.raises(ValueError, match=r"something needs torch 2\.11 .*2\.10\.1"):
        check_torch("2.11", "something")
