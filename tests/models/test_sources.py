from __future__ import annotations

import shutil
import socket

import pytest
import torch
from safetensors.torch import save_file

from fluxsr.inference import Upscaler
from fluxsr.models import FluxBackbone, StudentRecord, load_autoencoder, load_flux
from fluxsr.models.known_names import HUB_IDS, SHIPPED, model_or_shipped
from fluxsr.models.sources import ModelSource, StoredWeights
from fluxsr.models.weight_files import own_memory, public_name
from tests.models.conftest import TINY, tiny_transformer


def stored(path):
    return StoredWeights(ModelSource(path))


@pytest.fixture
def _no_hub(monkeypatch):
    """Asking a hub is the error here."""

    def asked(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nanoo", r"no model and no folder 'nanoo'; did you mean 'nano'\?"),
        ("nano_student", r"did you mean 'nano-student'\?"),
        ("FLUX.1-dv", r"did you mean 'black-forest-labs/FLUX.1-dev'\?"),
        ("flux1-schnell", r"did you mean 'black-forest-labs/FLUX.1-schnell'\?"),
        ("black-forest-labs/FLUX.1-dv", r"did you mean 'black-forest-labs/FLUX.1-dev'\?"),
        (
            "whatever",
            r"no folder 'whatever'; known are nano, nano-student, nano-flowsr, pixel; else give a shipped name",
        ),
        ("photo.png", r"photo.png is no model but an image: give a shipped name, a .safetensors file"),
        ("fluxsr_nano.yaml", r"is no model but a configuration, which `fluxsr fit --config` takes: give"),
        ("outputs/run/last.ckpt", r"last.ckpt is no model but a checkpoint of the whole training; beside it is"),
        ("outputs/run/student", r"there is no folder outputs/run/student: correct the path, or give"),
        ("./student", r"there is no folder ./student: correct the path, or give"),
    ],
)
@pytest.mark.usefixtures("_no_hub")
def test_what_no_model_is_called_is_said_before_a_hub_is_asked(name, message):
    with pytest.raises(ValueError, match=message):
        load_flux(name)
    with pytest.raises(ValueError, match=message):
        Upscaler.from_pretrained(name, device="cpu")


@pytest.mark.usefixtures("_no_hub")
def test_autoencoders_are_asked_for_in_the_same_words():
    with pytest.raises(ValueError, match=r"did you mean 'pixel'\?"):
        load_autoencoder("pixl")
    with pytest.raises(ValueError, match=r"did you mean 'madebyollin/taef1'\?"):
        load_autoencoder("taef1")
    with pytest.raises(ValueError, match="nano holds a transformer, and what is wanted here is an autoencoder"):
        load_autoencoder("nano")


def test_known_names_and_other_peoples_are_let_through():
    assert {ModelSource(name).kind for name in SHIPPED} == {"shipped"}
    for name in (*HUB_IDS, "somebody/FLUX.1-dev", "black-forest-labs/FLUX.2-dev"):
        assert ModelSource(name).kind == "hub"


def test_a_file_of_another_kind_is_named(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.bin is a file, and no .safetensors file that holds"):
        load_flux(str(file))


def test_an_adapter_in_the_models_place_is_told_its_own(tmp_path):
    backbone = FluxBackbone(tiny_transformer())
    backbone.add_lora(rank=2)
    file = backbone.save(tmp_path / "backbone.safetensors", record=StudentRecord(start_time=0.25))
    advice = rf"backbone.safetensors is a LoRA adapter, not a model: give --lora {file} --model BASE"
    loaders = (load_flux, stored, lambda path: Upscaler.from_pretrained(path, device="cpu"))
    for load in loaders:
        with pytest.raises(ValueError, match=advice):
            load(str(file))


def test_a_strangers_file_is_told_apart_from_an_adapter(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    for load in (load_flux, stored):
        with pytest.raises(ValueError, match=r"other.safetensors does not name its architecture"):
            load(str(tmp_path / "other.safetensors"))


def test_an_adapter_alone_names_no_model(tmp_path):
    assert model_or_shipped(None, None) == "nano-student"
    assert model_or_shipped("nano", "adapter.safetensors") == "nano"
    (tmp_path / "mine.safetensors").touch()
    with pytest.raises(ValueError, match=r"mine.safetensors is an adapter"):
        model_or_shipped(None, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"nowhere.safetensors does not exist"):
        model_or_shipped(None, "nowhere.safetensors")


class _Answer:
    """What a hub answers: the fields that its errors read."""

    headers: dict[str, str] = {}  # noqa: RUF012
    request = None

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


@pytest.mark.parametrize(("status", "gated"), [(401, True), (403, True), (404, False)])
def test_a_hub_that_refuses_access_asks_for_a_login(monkeypatch, status, gated):
    from huggingface_hub.errors import RepositoryNotFoundError

    def answer(*args, **kwargs):
        raise RepositoryNotFoundError(f"{status} Client Error", response=_Answer(status))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)
    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", answer)
    for load in (load_flux, load_autoencoder):
        with pytest.raises(ValueError, match="it is gated" if gated else "check the name"):
            load("somebody/model")


def test_digits_in_a_path_are_no_answer_of_a_hub(tmp_path):
    folder = tmp_path / "gated-403" / "model"
    (folder / "transformer").mkdir(parents=True)
    with pytest.raises(ValueError, match="the folder is incomplete or damaged"):
        load_flux(str(folder))


def test_a_scheduler_is_read_and_a_hub_without_one_has_none(monkeypatch, tmp_path):
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    (tmp_path / "scheduler").mkdir()
    (tmp_path / "transformer").mkdir()
    assert ModelSource(tmp_path).scheduler is None and ModelSource("nano").scheduler is None
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text('{"shift": 3.0}')
    assert ModelSource(tmp_path).scheduler == {"shift": 3.0}

    def answered(answer):
        def download(name, inside, revision=None):
            assert inside == "scheduler/scheduler_config.json"
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        return ModelSource("somebody/model").scheduler

    assert answered(str(file)) == {"shift": 3.0}
    assert answered(RemoteEntryNotFoundError("404", response=_Answer(404))) is None
    with pytest.raises(ValueError, match="without a network"):
        answered(LocalEntryNotFoundError("offline"))  # nobody knows whether it has one


# ---- weights on disk -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "model" / "transformer", max_shard_size="40KB")
    return tmp_path / "model"


def test_every_layout_gives_the_same_tensors(tmp_path, folder):
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path / "whole")
    FluxBackbone(transformer).save(tmp_path / "one.safetensors", record=StudentRecord(start_time=0.3))
    for source in (folder, folder / "transformer", tmp_path / "whole", tmp_path / "one.safetensors"):
        checkpoint = StoredWeights(ModelSource(source))
        assert checkpoint.files.keys() == transformer.state_dict().keys()
        for name, tensor in transformer.state_dict().items():
            assert torch.equal(checkpoint.read(name), tensor)
        assert {key: checkpoint.config[key] for key in TINY} == TINY
        assert checkpoint.dtype == "float32"
    assert checkpoint.source.record.start_time == 0.3


def test_a_hub_id_downloads_the_transformer_alone(monkeypatch, folder):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert StoredWeights(ModelSource("somebody/flux", "v2")).files
    assert asked == [("somebody/flux", "v2", "transformer/*")]


def test_what_is_missing_is_named(tmp_path, folder):
    with pytest.raises(ValueError, match=r"model has no tensor 'nothing': it is incomplete or no FLUX"):
        stored(folder).read("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty'.*the folder is incomplete or damaged"):
        stored(tmp_path / "empty")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(ValueError, match=r"text.safetensors is damaged or no safetensors file"):
        stored(tmp_path / "text.safetensors")


def test_own_memory_is_aligned_and_outlives_the_file(folder):
    from diffusers import FluxTransformer2DModel

    loaded = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    assert own_memory(loaded) is loaded
    shutil.rmtree(folder)
    for name, tensor in tiny_transformer().state_dict().items():
        own = loaded.state_dict()[name]
        assert own.data_ptr() % 64 == 0 and torch.equal(own, tensor)


def test_memory_is_shared_with_the_file_where_weights_go_to_an_accelerator(folder, monkeypatch):
    from diffusers import FluxTransformer2DModel

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    loaded = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    places = [parameter.data_ptr() for parameter in loaded.parameters()]
    assert [parameter.data_ptr() for parameter in own_memory(loaded).parameters()] == places


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("backbone._orig_mod.transformer.x.weight", "backbone.transformer.x.weight"),
        ("a._checkpoint_wrapped_module._orig_mod.b", "a.b"),
        ("_orig_mod.b", "b"),
        ("a.module.b", "a.module.b"),
    ],
)
def test_public_names(name, public):
    assert public_name(name) == public
