from __future__ import annotations

import shutil

import pytest
import torch

from fluxsr.models import FluxBackbone, StudentRecord
from fluxsr.models.sources import ModelSource
from fluxsr.models.stored_weights import StoredWeights
from fluxsr.models.weight_files import own_memory
from tests.models.conftest import TINY, tiny_transformer


@pytest.fixture
def folder(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "model" / "transformer", max_shard_size="40KB")
    return tmp_path / "model"


def test_every_layout_gives_the_same_tensors(tmp_path, folder):
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path / "whole")
    FluxBackbone(transformer).save(tmp_path / "one.safetensors", record=StudentRecord(start_time=0.3))
    for source in (folder, folder / "transformer", tmp_path / "whole", tmp_path / "one.safetensors"):
        checkpoint = StoredWeights(str(source))
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
        StoredWeights(str(folder)).read("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty'.*the folder is incomplete or damaged"):
        StoredWeights(str(tmp_path / "empty"))
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(ValueError, match=r"text.safetensors is damaged or no safetensors file"):
        StoredWeights(str(tmp_path / "text.safetensors"))


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
