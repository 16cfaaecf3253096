"""What a student is: one record, the same in an adapter's header, a single file, a pipeline's folder and a checkpoint."""

from __future__ import annotations

import json
import logging
from dataclasses import fields, replace

import pytest
import torch
from PIL import Image

from fluxsr.flows import FlowTrajectoryDistillation, RectifiedSRFlow
from fluxsr.inference import Upscaler, export_model, upscale_files
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import (
    FluxBackbone,
    PixelAutoencoder,
    PromptEmbedding,
    StudentRecord,
    fold_modulation,
    fuse_lora,
    load_flux,
    load_folded,
    read_record,
)
from fluxsr.models.autoencoders import wrap_autoencoder
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import differing
from fluxsr.models.weight_files import read_header
from fluxsr.training.callbacks import ExportBackbone
from tests.models.conftest import tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl
from tests.training.conftest import loader, tiny_module, tiny_trainer

FULL = StudentRecord(
    base="someone/base",
    base_sizes={"num_layers": 2},
    objective="FlowTrajectoryDistillation",
    from_noise=True,
    start_time=0.1 + 0.2,
    window=48,
    scale=2.0,
    guidance=3.5,
    prompt='ein schönes Foto, "x"',
    prompt_digest="abc",
    autoencoder={"kind": "pixel", "scale": 4.0},
    autoencoder_name="someone/vae",
    license="apache-2.0",
    trained="30k steps",
    steps=7,
    encoder_lora="def",
)


def test_every_field_survives_a_header_and_json():
    assert all(getattr(FULL, one.name) != getattr(StudentRecord(), one.name) for one in fields(StudentRecord))
    assert StudentRecord.read(FULL.header(), "x") == FULL
    assert StudentRecord.read(json.loads(json.dumps(FULL.values())), "x") == FULL
    assert StudentRecord().header() == {}


@pytest.mark.parametrize(
    ("header", "field", "value"),
    [
        ({"objective": "FlowMatching"}, "from_noise", True),
        ({"objective": "FlowTrajectoryDistillation"}, "from_noise", False),
        ({"base_model": "someone/base"}, "base", "someone/base"),
        ({"text_stream": "false", "revision": "v1"}, "base", ""),
        ({"note": "another program's"}, "start_time", None),
    ],
)
def test_what_a_file_of_0_2_does_not_say_has_one_default(header, field, value):
    assert getattr(StudentRecord.read(header, "x"), field) == value


@pytest.mark.parametrize(("key", "value"), [("start_time", "soon"), ("base_sizes", "[1"), ("window", "{}")])
def test_a_damaged_header_names_file_and_key(key, value):
    with pytest.raises(ValueError, match=rf"a\.safetensors.*{key}"):
        StudentRecord.read({key: value}, "a.safetensors")


def test_a_training_writes_one_record_everywhere(tmp_path):
    backbone = FluxBackbone(tiny_transformer(in_channels=48, guidance_embeds=True), tiny_prompt(), guidance=3.5)
    module = tiny_module(backbone=backbone, losses={}, tile=32, scale=4)
    path = tmp_path / "student.safetensors"
    trainer = tiny_trainer(tmp_path, max_steps=1, callbacks=[ExportBackbone(str(path))])
    trainer.fit(module, loader(1))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    expected = StudentRecord(
        base_sizes={"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16},
        objective="FlowTrajectoryDistillation",
        start_time=0.25,
        window=32,
        scale=4,
        guidance=3.5,
        prompt="a photo",
        prompt_digest=tiny_prompt().digest,
        autoencoder=PixelAutoencoder(2).fingerprint(),
        license="unknown",
        steps=1,
    )
    assert read_record(path) == expected
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["fluxsr"]["student"]
    assert StudentRecord.read(saved, "x") == expected


@pytest.mark.parametrize(("guidance", "said"), [(3.5, 0), (1.0, 1)])
def test_a_training_that_goes_on_otherwise_is_warned(tmp_path, caplog, guidance, said):
    def module(scale):
        net = tiny_transformer(in_channels=48, guidance_embeds=True)
        return tiny_module(backbone=FluxBackbone(net, guidance=scale), losses={})

    first = tiny_trainer(tmp_path, max_steps=1)
    first.fit(module(3.5), loader(1))
    first.save_checkpoint(tmp_path / "last.ckpt")
    tiny_trainer(tmp_path, max_steps=2).fit(module(guidance), loader(2), ckpt_path=tmp_path / "last.ckpt")
    assert sum("guidance" in record.getMessage() for record in caplog.records) == said


def test_a_single_file_and_a_folder_say_the_same(tmp_path):
    made = StudentRecord(objective="ConsistencySRFlow", start_time=0.3, window=48, scale=2, trained="briefly", steps=5)
    load_flux("nano-student", trainable="none").save(tmp_path / "mine.safetensors", record=made)
    export_model(str(tmp_path / "folder"), str(tmp_path / "mine.safetensors"))
    export_model(str(tmp_path / "one.safetensors"), str(tmp_path / "mine.safetensors"), fold=False)
    records = [ModelSource(tmp_path / name).record for name in ("folder", "one.safetensors")]
    assert records[0] == records[1]
    assert records[0] == FluxSRPipeline.from_pretrained(tmp_path / "folder").record
    assert records[0] == Upscaler.from_pretrained(tmp_path / "folder", device="cpu").record
    kept = {name: value for name, value in records[0].values().items() if name in made.values()}
    assert kept == made.values()
    assert records[0].autoencoder == PixelAutoencoder().fingerprint() and records[0].license == "apache-2.0"


@pytest.fixture
def adapter(tmp_path):
    """A base with guidance, and an adapter that was trained at 3.5 with a prompt."""
    base = tiny_transformer(guidance_embeds=True)
    base.save_pretrained(tmp_path / "base")
    student = FluxBackbone(base, tiny_prompt(), guidance=3.5)
    student.add_lora(rank=1)
    tiny_prompt().save(tmp_path / "prompt.safetensors")
    return tmp_path / "base", student.save_lora(tmp_path / "adapter.safetensors"), tmp_path / "prompt.safetensors"


def test_guidance_and_prompt_are_the_students_own(adapter, caplog):
    base, lora, prompt = adapter
    backbone = load_flux(str(base), lora_weights=str(lora), prompt=str(prompt))
    assert backbone.guidance == 3.5 and not caplog.records


@pytest.mark.parametrize(
    ("change", "said"), [({"guidance": 1.0}, "guidance"), ({"prompt": "other.safetensors"}, "prompt")]
)
def test_other_conditions_are_warned_of(adapter, caplog, monkeypatch, change, said):
    base, lora, prompt = adapter
    monkeypatch.chdir(base.parent)
    tiny_prompt(tokens=2).save("other.safetensors")
    with caplog.at_level(logging.WARNING):
        load_flux(str(base), lora_weights=str(lora), **{"prompt": str(prompt), **change})
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_folding_takes_and_compares_the_same(adapter, tmp_path, caplog):
    base, lora, prompt = adapter
    options = {"prompt": PromptEmbedding.load(prompt), "lora": lora}
    assert load_folded(str(base), **options).guidance == 3.5 and not caplog.records
    load_folded(str(base), guidance=1.0, **options)
    assert len(caplog.records) == 1 and "guidance" in caplog.records[0].getMessage()


def test_a_pipelines_own_prompt_is_folded(tmp_path):
    backbone = FluxBackbone(tiny_transformer(in_channels=48), tiny_prompt())
    pipeline = FluxSRPipeline.from_backbone(backbone, PixelAutoencoder(2), backbone.record.given(start_time=0.25))
    pipeline.save_pretrained(tmp_path / "whole")
    export_model(str(tmp_path / "folded"), str(tmp_path / "whole"))
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole, folded = (Upscaler.from_pretrained(tmp_path / name, device="cpu") for name in ("whole", "folded"))
    torch.testing.assert_close(folded(image), whole(image), rtol=1e-5, atol=1e-5)


def test_another_autoencoder_is_warned_of(tmp_path, caplog):
    other = replace(StudentRecord(start_time=0.25), autoencoder=PixelAutoencoder(4, 0.4).fingerprint())
    load_flux("nano-student", trainable="none").save(tmp_path / "mine.safetensors", record=other)
    mine = Upscaler.from_pretrained(tmp_path / "mine.safetensors", device="cpu")
    assert mine.autoencoder.fingerprint() == other.autoencoder and not caplog.records
    Upscaler.from_pretrained(tmp_path / "mine.safetensors", autoencoder="pixel", device="cpu")
    assert len(caplog.records) == 1 and "autoencoder" in caplog.records[0].getMessage()


def test_the_scale_is_what_the_student_was_trained_for(tmp_path):
    record = StudentRecord(start_time=0.25, scale=2)
    load_flux("nano-student", trainable="none").save(tmp_path / "mine.safetensors", record=record)
    upscaler = Upscaler.from_pretrained(tmp_path / "mine.safetensors", device="cpu")
    assert upscaler(torch.rand(3, 16, 20)).shape == (3, 32, 40) and upscaler(torch.rand(3, 16, 20), 3).shape[-1] == 60
    Image.new("RGB", (20, 16)).save(tmp_path / "small.png")
    (done,) = upscale_files([str(tmp_path / "small.png")], str(tmp_path / "large.png"), load=lambda: upscaler)
    assert done.size == (32, 40)
    assert Upscaler.from_pretrained(device="cpu").scale == 4


def test_no_path_is_in_a_record(tmp_path):
    load_flux("nano-student", trainable="none").save(tmp_path / "mine.safetensors", record=StudentRecord(start_time=1))
    made = load_flux(str(tmp_path / "mine.safetensors")).save(tmp_path / "adapter.safetensors")
    assert not [text for text in read_header(made)[1].values() if str(tmp_path) in text]


# ---- what is known survives what is done to a model ------------------------------------------------------------


def test_a_teacher_stays_one_when_it_is_folded_fused_and_saved(tmp_path):
    teacher = load_flux("nano", trainable="none")
    made = [teacher, fuse_lora(teacher), fold_modulation(teacher, 0.25), load_folded("nano", t=0.25)]
    assert all(one.record.from_noise and one.record.base == "nano" for one in made)
    with pytest.raises(ValueError, match="flow teacher"):
        FluxSRPipeline.from_backbone(teacher, PixelAutoencoder(), teacher.record.given(start_time=0.25))
    teacher.save(tmp_path / "again.safetensors")
    with pytest.raises(ValueError, match="flow teacher"):
        Upscaler.from_pretrained(tmp_path / "again.safetensors", start_time=0.25, device="cpu")


def test_a_student_keeps_its_time_and_window_when_it_is_saved_again(tmp_path):
    student = load_flux("nano-student", trainable="none")
    student.save(tmp_path / "again.safetensors")
    again = Upscaler.from_pretrained(tmp_path / "again.safetensors", device="cpu")
    assert (again.start_time, again.window) == (0.25, 128)
    assert fold_modulation(student, 0.3).record.start_time == 0.3
    student.add_lora(rank=1)
    assert student.record.start_time is None  # another model, of which nothing is known yet
    assert load_flux("nano-student").record.start_time is None


def test_a_folder_loads_its_own_autoencoder_and_window(tmp_path):
    backbone = FluxBackbone(tiny_transformer(in_channels=192))
    record = StudentRecord(start_time=0.25, autoencoder_name="someone/vae")
    FluxSRPipeline.from_backbone(backbone, PixelAutoencoder(), record).save_pretrained(tmp_path / "folder")
    loaded = Upscaler.from_pretrained(tmp_path / "folder", device="cpu")
    assert loaded.record.autoencoder_name == "" and isinstance(loaded.autoencoder, PixelAutoencoder)
    assert loaded.window == FluxSRPipeline.from_pretrained(tmp_path / "folder").upscaler().window == 128


def test_an_autoencoder_is_the_same_with_an_adapter_and_in_other_dtypes():
    plain = wrap_autoencoder(tiny_kl()).fingerprint()
    assert wrap_autoencoder(tiny_kl(), encoder_lora_rank=2).fingerprint() == plain
    assert wrap_autoencoder(tiny_kl().bfloat16()).fingerprint() == plain
    assert not differing(wrap_autoencoder(tiny_kl().half()).fingerprint(), plain)
    other = tiny_kl()
    with torch.no_grad():
        other.decoder.conv_out.weight.add_(0.1)
    assert differing(wrap_autoencoder(other).fingerprint(), plain) == ["weights"]


def test_an_adapter_that_was_trained_with_guidance_runs_on_a_relative_without(adapter, tmp_path):
    _, lora, prompt = adapter
    tiny_transformer().save_pretrained(tmp_path / "relative" / "transformer")
    options = {"lora": lora, "prompt": prompt, "start_time": 0.25, "autoencoder": str(tmp_path / "vae")}
    tiny_kl().save_pretrained(tmp_path / "vae")
    assert Upscaler.from_pretrained(tmp_path / "relative", device="cpu", **options).velocity.guidance is None


def test_without_weights_nothing_is_asked_and_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("a hub was asked"))
    monkeypatch.setattr("fluxsr.models.sources.FLUX_ARCHITECTURES", {"flux.1-dev": dict(tiny_transformer().config)})
    made = load_flux("black-forest-labs/FLUX.1-dev", weights=False, trainable="none")
    assert made.record.base == load_flux("nano", weights=False).record.base == ""


def test_a_compiled_backbone_says_the_same():
    backbone = load_flux("nano", lora_rank=1)
    module = tiny_module(backbone=torch.compile(backbone), lora=None, losses={}, autoencoder=PixelAutoencoder())
    assert module.record.base == "nano" and module.record.prompt_digest == backbone.prompt.digest


@pytest.mark.parametrize("change", ["base", "objective", "scale"])
def test_a_checkpoint_is_compared_with_what_goes_on(tmp_path, caplog, change):
    def module(base="nano", objective=None, **options):
        backbone = FluxBackbone(tiny_transformer(in_channels=48))
        backbone.base = base
        objective = objective or FlowTrajectoryDistillation(0.25)
        return tiny_module(backbone=backbone, losses={}, objective=objective, **options)

    first = module(scale=2)
    trainer = tiny_trainer(tmp_path, max_steps=1)
    trainer.fit(first, loader(1, scale=2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    if change == "base":
        with pytest.raises(ValueError, match="was trained on nano, not on nano-flowsr"):
            module("nano-flowsr").on_load_checkpoint(checkpoint)
    elif change == "objective":
        module(objective=RectifiedSRFlow()).on_load_checkpoint(checkpoint)
        assert any("RectifiedSRFlow" in record.getMessage() for record in caplog.records)
    else:
        again = module()
        again.on_load_checkpoint(checkpoint)
        assert again.scale == 2
