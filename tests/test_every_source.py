"""Every kind of source in every command and constructor that takes a model: taken, or refused with one answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from fluxsr.evaluation.systems import load_model
from fluxsr.inference import Upscaler, export_model
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import FluxBackbone, encode_prompt, load_autoencoder, load_flux, load_folded
from fluxsr.training import make_pairs
from tests.models.conftest import TINY, tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.models.test_flux2 import tiny_kl2

SMALL = {"num": 1, "steps": 1, "batch_size": 1, "size": 32}

# Each takes the source's name and an empty folder.
TAKERS = {
    "load_flux": lambda name, _: load_flux(name, trainable="none"),
    "load_flux on meta": lambda name, _: load_flux(name, trainable="none", device="meta"),
    "load_folded": lambda name, _: load_folded(name),
    "upscale": lambda name, _: Upscaler.from_pretrained(name, device="cpu"),
    "upscale with start_time": lambda name, _: Upscaler.from_pretrained(name, device="cpu", start_time=0.25),
    "evaluate": lambda name, _: load_model(name, device="cpu"),
    "pairs": lambda name, folder: make_pairs(str(folder / "pairs"), model=name, device="cpu", **SMALL),
    "export": lambda name, folder: export_model(str(folder / "out"), model=name),
    "pipeline": lambda name, _: FluxSRPipeline.from_pretrained(name),
    "load_autoencoder": lambda name, _: load_autoencoder(name),
    "prompt": lambda name, _: encode_prompt("", name),
}

OK = ""
NO_TRANSFORMER = "is an autoencoder, and what is wanted here is a transformer"
NO_AUTOENCODER = "holds a transformer, and what is wanted here is an autoencoder"
NO_VAE_INSIDE = "has no autoencoder of its own: give one"
NO_PIPELINE = "and what is wanted here is a FluxSRPipeline"
NO_TEXT = "has no text encoders"
OTHER_TEXT = "whose text encoders are not known here"
NO_WEIGHTS = "names an architecture without shipped weights"
NO_TIME = "does not say at which time the LR latents stand"
OTHER_CLASS = "which is not supported here; supported:"
FOLDED = "is folded already"
INCOMPLETE = "the folder is incomplete or damaged"
UNREACHABLE = "check the name; without a network give a local folder"

_transformers = (
    "load_flux",
    "load_flux on meta",
    "load_folded",
    "upscale",
    "upscale with start_time",
    "evaluate",
    "pairs",
    "export",
)


def row(default: str, /, **answers: str) -> dict[str, str]:
    """The answers of all takers; underscores stand for spaces."""
    table = dict.fromkeys(_transformers, default) | {
        "pipeline": NO_PIPELINE,
        "load_autoencoder": NO_AUTOENCODER,
        "prompt": NO_TEXT,
    }
    named = {key.replace("_with_", " with ").replace("_on_", " on "): answer for key, answer in answers.items()}
    assert set(named) <= set(table), named
    return table | named


EXPECTED = {
    "shipped": row(OK),
    "file": row(OK),
    # Of a base, the upscaler must be told the time.
    "base": row(OK, upscale=NO_PIPELINE, evaluate=NO_PIPELINE, load_autoencoder=OK, prompt=INCOMPLETE),
    "fluxsr pipeline": row(OK, pipeline=OK, load_autoencoder=OK, prompt=OTHER_TEXT),
    "folded pipeline": row(OK, load_folded=FOLDED, export=FOLDED, pipeline=OK, load_autoencoder=OK, prompt=OTHER_TEXT,
                           pairs="folded at t"),
    "transformer": row(
        OK, upscale=NO_TIME, evaluate=NO_TIME, upscale_with_start_time=NO_VAE_INSIDE, pairs=NO_VAE_INSIDE,
        export=NO_VAE_INSIDE, load_autoencoder=OTHER_CLASS,
    ),
    "architecture": row(NO_WEIGHTS, load_flux_on_meta=OK),
    "autoencoder": row(NO_TRANSFORMER, load_autoencoder=OK),
    "taesd": row(NO_TRANSFORMER, load_autoencoder=OK),
    "pixel": row(NO_TRANSFORMER, load_autoencoder=OK),
    "chroma": row(OTHER_CLASS, load_autoencoder=OTHER_CLASS),
    "klein": row(OK, upscale=NO_PIPELINE, evaluate=NO_PIPELINE, load_autoencoder=OK, prompt=INCOMPLETE),
    "folded klein": row(OK, load_folded=FOLDED, export=FOLDED, pipeline=OK, load_autoencoder=OK, prompt=OTHER_TEXT,
                        pairs="folded at t"),
    "hub": row(UNREACHABLE, load_flux_on_meta=OK, pipeline=UNREACHABLE, load_autoencoder=UNREACHABLE, prompt=UNREACHABLE),
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """One name of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    load_flux("nano-student", trainable="none").save(folder / "mine.safetensors", metadata={"start_time": "0.25"})
    tiny_transformer().save_pretrained(folder / "base" / "transformer")
    tiny_kl().save_pretrained(folder / "base" / "vae")
    backbone, autoencoder = FluxBackbone(tiny_transformer()), load_autoencoder(str(folder / "base"))
    FluxSRPipeline.from_backbone(backbone, autoencoder).save_pretrained(folder / "sr")
    export_model(str(folder / "folded"), model=str(folder / "base"))
    tiny_transformer().save_pretrained(folder / "transformer")
    tiny_kl().save_pretrained(folder / "vae")
    (folder / "taesd").mkdir()
    vae = AutoencoderTiny(latent_channels=16)
    for part, shift in (("encoder", 0), ("decoder", 1)):
        layers = {
            f"{int(key.split('.', 1)[0]) + shift}.{key.split('.', 1)[1]}": tensor
            for key, tensor in getattr(vae, part).layers.state_dict().items()
        }
        save_file(layers, folder / "taesd" / f"small_{part}.safetensors")
    (folder / "chroma").mkdir()
    (folder / "chroma" / "config.json").write_text(json.dumps({"_class_name": "ChromaTransformer2DModel", **TINY}))
    tiny_transformer(family="flux.2").save_pretrained(folder / "klein" / "transformer")
    tiny_kl2().save_pretrained(folder / "klein" / "vae")
    export_model(str(folder / "folded klein"), model=str(folder / "klein"))
    return {
        "shipped": "nano-student",
        "file": str(folder / "mine.safetensors"),
        "base": str(folder / "base"),
        "fluxsr pipeline": str(folder / "sr"),
        "folded pipeline": str(folder / "folded"),
        "transformer": str(folder / "transformer"),
        "architecture": "flux.1-schnell",
        "autoencoder": str(folder / "vae"),
        "taesd": str(folder / "taesd"),
        "pixel": "pixel",
        "chroma": str(folder / "chroma"),
        "klein": str(folder / "klein"),
        "folded klein": str(folder / "folded klein"),
        "hub": "black-forest-labs/FLUX.1-schnell",
    }


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A hub that is not there, without the minutes of retrying."""

    def unreachable(*args, **kwargs):
        raise OSError("there is no network")

    for name in ("huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download"):
        monkeypatch.setattr(name, unreachable)
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", unreachable)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("kind", EXPECTED)
def test_every_source_in_every_command(sources, tmp_path, kind, taker):
    expected = EXPECTED[kind][taker]
    if not expected:
        TAKERS[taker](sources[kind], tmp_path)
        return
    with pytest.raises(ValueError, match=expected) as refused:
        TAKERS[taker](sources[kind], tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def missing_file(folder: Path) -> str:
    return str(folder / "missing.safetensors")


def adapter(folder: Path) -> str:
    backbone = FluxBackbone(tiny_transformer())
    backbone.add_lora(rank=1)
    return str(backbone.save_lora(folder / "lora.safetensors"))


def empty_folder(folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def named(name: str):
    return lambda folder: name


WRONG = {
    "a missing file": missing_file,
    "an empty folder": empty_folder,
    "a folder that is not there": named("outputs/run/student"),
    "a mistyped name": named("nano_student"),
    "a mistyped hub id": named("black-forest-labs/FLUX.1-dv"),
    "an unknown name": named("whatever"),
    "an image": named("photo.png"),
    "a configuration": named("fluxsr_nano.yaml"),
    "a training checkpoint": named("outputs/last.ckpt"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_name_has_one_answer(tmp_path, wrong):
    name = WRONG[wrong](tmp_path)
    answers = {}
    for taker, take in TAKERS.items():
        if taker == "evaluate" and name.endswith(".ckpt"):
            continue  # which other people's models come in
        with pytest.raises(ValueError, match=re.escape(name)) as refused:
            take(name, tmp_path / "out")
        answers[taker] = str(refused.value)
    assert len(set(answers.values())) == 1, answers
    assert "\n" not in answers["load_flux"]


def test_an_adapter_alone_has_one_answer_where_a_transformer_is_wanted(tmp_path):
    name = adapter(tmp_path)
    answers = set()
    for taker in _transformers:
        with pytest.raises(ValueError, match="is a LoRA adapter, not a model") as refused:
            TAKERS[taker](name, tmp_path / "out")
        answers.add(str(refused.value))
    assert len(answers) == 1


def test_a_strangers_file_has_one_answer(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    answers = set()
    for taker in set(_transformers) - {"evaluate"}:  # which asks spandrel
        with pytest.raises(ValueError, match="does not name its architecture") as refused:
            TAKERS[taker](str(tmp_path / "other.safetensors"), tmp_path / "out")
        answers.add(str(refused.value))
    assert len(answers) == 1
