"""Every kind of source in every command and constructor that takes a model: taken, or refused with one answer."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from fluxsr.evaluation.systems import load_systems
from fluxsr.inference import Upscaler, export_model
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import FluxBackbone, StudentRecord, encode_prompt, load_autoencoder, load_flux, load_folded
from fluxsr.training import make_pairs
from tests.comfyui.standin import load_pack
from tests.models.conftest import TINY, tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.models.test_flux2 import tiny_kl2

SMALL = {"num": 1, "steps": 1, "batch_size": 1, "size": 32}


class Name(NamedTuple):
    """What a user names: a model, and an adapter or a time where one is given."""

    model: str
    lora: str | None = None
    start_time: float | None = None


def of_a_node(name: Name) -> None:
    """ComfyUI's node, against a stand-in of its interface."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        load_pack(Path(folder), lambda module, stands_for: patch.setitem(sys.modules, module, stands_for))
        from custom_nodes_fluxsr.load_model import LoadModel

        patch.setattr("custom_nodes_fluxsr.files.path_of", lambda path: None if path == "none" else path)
        try:
            LoadModel.execute(name.model, name.lora or "none", "none", 0.0, "auto", "comfyui", name.start_time or 0.0)
        finally:
            for one in [one for one in sys.modules if one.startswith("custom_nodes_fluxsr.")]:
                del sys.modules[one]


# The commands that restore photos: whatever the source is, they give one answer.
RESTORERS = {
    "upscale": lambda name, _: Upscaler.from_pretrained(
        name.model, lora=name.lora, start_time=name.start_time, device="cpu"
    ),
    "upscale within a memory": lambda name, _: Upscaler.from_pretrained(
        name.model, lora=name.lora, start_time=name.start_time, device="cpu", memory="4GB"
    ),
    "evaluate": lambda name, _: load_systems(
        name.model,
        partial(Upscaler.from_pretrained, lora=name.lora, start_time=name.start_time, device="cpu"),
        device="cpu",
    ),
    "export": lambda name, folder: export_model(
        str(folder / "out"), name.model, name.lora, start_time=name.start_time, fold=False
    ),
    "export folded": lambda name, folder: export_model(
        str(folder / "out"), name.model, name.lora, start_time=name.start_time
    ),
    "node": lambda name, _: of_a_node(name),
}
OTHERS = {
    "load_flux": lambda name, _: load_flux(name.model, trainable="none", lora_weights=name.lora),
    "load_flux on meta": lambda name, _: load_flux(name.model, trainable="none", lora_weights=name.lora, device="meta"),
    "load_folded": lambda name, _: load_folded(name.model, lora=name.lora),
    "pairs": lambda name, folder: make_pairs(str(folder / "pairs"), model=name.model, device="cpu", **SMALL),
    "pipeline": lambda name, _: FluxSRPipeline.from_pretrained(name.model),
    "load_autoencoder": lambda name, _: load_autoencoder(name.model),
    "prompt": lambda name, _: encode_prompt("", name.model),
}
TAKERS = RESTORERS | OTHERS

TRANSFORMERS = {*RESTORERS, "load_flux", "load_flux on meta", "load_folded", "pairs"}

OK = ""
NO_TRANSFORMER = "is an autoencoder, and what is wanted here is a transformer"
NO_AUTOENCODER = "holds a transformer, and what is wanted here is an autoencoder"
NO_VAE_INSIDE = "has no autoencoder of its own: give one"
NO_PIPELINE = "and what is wanted here is a FluxSRPipeline"
NO_TEXT = "has no text encoders"
OTHER_TEXT = "whose text encoders are not known here"
NO_WEIGHTS = "names an architecture without shipped weights"
NO_TIME = "does not say at which time the LR latents stand"
TEACHER = "is a flow teacher"
STUDENT = "is a student"
OTHER_CLASS = "which is not supported here; supported:"
FOLDED = "is folded already"
INCOMPLETE = "the folder is incomplete or damaged"
UNREACHABLE = "check the name; without a network give a local folder"


def row(restorers: str, others: str = OK, /, **answers: str) -> dict[str, str]:
    """The answers of all takers; underscores stand for spaces."""
    table = dict.fromkeys(RESTORERS, restorers) | dict.fromkeys(
        ("load_flux", "load_flux on meta", "load_folded"), others
    )
    table |= {"pairs": others, "pipeline": NO_PIPELINE, "load_autoencoder": NO_AUTOENCODER, "prompt": NO_TEXT}
    named = {key.replace("_on_", " on ").replace("export_f", "export f"): answer for key, answer in answers.items()}
    assert set(named) <= set(table), named
    return table | named


IN_FOLDER = {"load_autoencoder": OK, "prompt": INCOMPLETE}
PIPELINE = {"pipeline": OK, "load_autoencoder": OK, "prompt": OTHER_TEXT}
FOLDED_PIPELINE = PIPELINE | {"load_folded": FOLDED, "pairs": "folded at t"}
EXPECTED = {
    "shipped": row(OK, pairs=STUDENT),
    "shipped teacher": row(TEACHER),
    "teacher with an adapter": row(OK),
    "teacher with an adapter without a time": row(NO_TIME),
    "teacher with an adapter, and a time": row(OK),
    "file": row(OK, pairs=STUDENT),
    "file without a time": row(NO_TIME),
    "file of a teacher": row(TEACHER),
    "base": row(NO_TIME, **IN_FOLDER),
    "base and a time": row(OK, **IN_FOLDER),
    "base with an adapter": row(OK, **IN_FOLDER),
    "base with a teacher's adapter": row(TEACHER, **IN_FOLDER),
    "fluxsr pipeline": row(OK, **PIPELINE, pairs=STUDENT),
    "folded pipeline": row(OK, **FOLDED_PIPELINE, export_folded=FOLDED),
    "transformer": row(NO_TIME, pairs=NO_VAE_INSIDE, load_autoencoder=OTHER_CLASS),
    "transformer and a time": row(NO_VAE_INSIDE, pairs=NO_VAE_INSIDE, load_autoencoder=OTHER_CLASS),
    "architecture": row(NO_WEIGHTS, NO_WEIGHTS, load_flux_on_meta=OK),
    "autoencoder": row(NO_TRANSFORMER, NO_TRANSFORMER, load_autoencoder=OK),
    "taesd": row(NO_TRANSFORMER, NO_TRANSFORMER, load_autoencoder=OK),
    "pixel": row(NO_TRANSFORMER, NO_TRANSFORMER, load_autoencoder=OK),
    "chroma": row(OTHER_CLASS, OTHER_CLASS, load_autoencoder=OTHER_CLASS),
    "klein": row(NO_TIME, **IN_FOLDER),
    "klein with an adapter": row(OK, **IN_FOLDER),
    "folded klein": row(OK, **FOLDED_PIPELINE, export_folded=FOLDED),
    "hub": row(UNREACHABLE, UNREACHABLE, load_flux_on_meta=OK, pipeline=UNREACHABLE, load_autoencoder=UNREACHABLE,
               prompt=UNREACHABLE),
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Name]:
    """One name of each kind."""
    folder = tmp_path_factory.mktemp("sources")

    def adapter(model, name: str, **record) -> str:
        model.add_lora(rank=1)
        return str(model.save_lora(folder / f"{name}.safetensors", record=model.record.given(**record)))

    student = load_flux("nano-student", trainable="none")
    student.save(folder / "mine.safetensors", record=StudentRecord(start_time=0.25))
    student.save(folder / "timeless.safetensors", record=StudentRecord())
    student.save(folder / "teacher.safetensors", record=StudentRecord(start_time=1.0, objective="FlowMatching"))
    on_nano = adapter(load_flux("nano", trainable="none"), "on nano", start_time=0.25)
    timeless = adapter(load_flux("nano", trainable="none"), "on nano, without a time")
    base, klein = str(folder / "base"), str(folder / "klein")
    tiny_transformer().save_pretrained(folder / "base" / "transformer")
    tiny_kl().save_pretrained(folder / "base" / "vae")
    on_base = adapter(FluxBackbone(tiny_transformer()), "on base", start_time=0.25)
    of_a_teacher = adapter(FluxBackbone(tiny_transformer()), "on base, a teacher", start_time=1.0, from_noise=True)
    backbone, autoencoder = FluxBackbone(tiny_transformer()), load_autoencoder(base)
    FluxSRPipeline.from_backbone(backbone, autoencoder, StudentRecord(start_time=0.25)).save_pretrained(folder / "sr")
    export_model(str(folder / "folded"), model=base, start_time=0.25)
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
    on_klein = adapter(FluxBackbone(tiny_transformer(family="flux.2")), "on klein", start_time=0.25)
    export_model(str(folder / "folded klein"), model=klein, lora=on_klein)
    return {
        "shipped": Name("nano-student"),
        "shipped teacher": Name("nano"),
        "teacher with an adapter": Name("nano", on_nano),
        "teacher with an adapter without a time": Name("nano", timeless),
        "teacher with an adapter, and a time": Name("nano", timeless, 0.25),
        "file": Name(str(folder / "mine.safetensors")),
        "file without a time": Name(str(folder / "timeless.safetensors")),
        "file of a teacher": Name(str(folder / "teacher.safetensors")),
        "base": Name(base),
        "base and a time": Name(base, None, 0.25),
        "base with an adapter": Name(base, on_base),
        "base with a teacher's adapter": Name(base, of_a_teacher),
        "fluxsr pipeline": Name(str(folder / "sr")),
        "folded pipeline": Name(str(folder / "folded")),
        "transformer": Name(str(folder / "transformer")),
        "transformer and a time": Name(str(folder / "transformer"), None, 0.25),
        "architecture": Name("flux.1-schnell"),
        "autoencoder": Name(str(folder / "vae")),
        "taesd": Name(str(folder / "taesd")),
        "pixel": Name("pixel"),
        "chroma": Name(str(folder / "chroma")),
        "klein": Name(klein),
        "klein with an adapter": Name(klein, on_klein),
        "folded klein": Name(str(folder / "folded klein")),
        "hub": Name("black-forest-labs/FLUX.1-schnell"),
    }


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A hub that is not there, without the minutes of retrying."""

    def unreachable(*args, **kwargs):
        raise OSError("there is no network")

    for name in ("huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download"):
        monkeypatch.setattr(name, unreachable)
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", unreachable)


@pytest.mark.parametrize("taker", OTHERS)
@pytest.mark.parametrize("kind", EXPECTED)
def test_every_source_in_every_command(sources, tmp_path, kind, taker):
    answer = answer_of(taker, sources[kind], tmp_path)
    assert bool(EXPECTED[kind][taker]) == bool(answer) and EXPECTED[kind][taker] in answer


@pytest.mark.parametrize("kind", EXPECTED)
def test_all_that_restore_give_one_answer(sources, tmp_path, kind):
    """A folded model is not folded again; else the answers are the same."""
    answers = {}
    for taker in RESTORERS:
        answers[taker] = answer_of(taker, sources[kind], tmp_path / taker)
        expected = EXPECTED[kind][taker]
        assert bool(expected) == bool(answers[taker]) and expected in answers[taker], taker
    if EXPECTED[kind]["export folded"] != FOLDED:
        assert len(set(answers.values())) == 1, answers


def answer_of(taker: str, name: Name, folder: Path) -> str:
    """What a command says of a source, in one line and without leaving anything behind; nothing where it takes it."""
    try:
        TAKERS[taker](name, folder)
    except ValueError as error:
        answer = str(error)
    else:
        return OK
    assert "\n" not in answer and not (folder.exists() and list(folder.iterdir()))
    return answer


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
            take(Name(name), tmp_path / "out")
        answers[taker] = str(refused.value)
    assert len(set(answers.values())) == 1, answers
    assert "\n" not in answers["load_flux"]


def test_an_adapter_alone_has_one_answer_where_a_transformer_is_wanted(tmp_path):
    name = adapter(tmp_path)
    answers = set()
    for taker in TRANSFORMERS:
        with pytest.raises(ValueError, match="is a LoRA adapter, not a model") as refused:
            TAKERS[taker](Name(name), tmp_path / "out")
        answers.add(str(refused.value))
    assert len(answers) == 1


def test_a_strangers_file_has_one_answer(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    answers = set()
    for taker in TRANSFORMERS - {"evaluate"}:  # which asks spandrel
        with pytest.raises(ValueError, match="does not name its architecture") as refused:
            TAKERS[taker](Name(str(tmp_path / "other.safetensors")), tmp_path / "out")
        answers.add(str(refused.value))
    assert len(answers) == 1
