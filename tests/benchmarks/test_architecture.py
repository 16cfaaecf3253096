"""The benchmark of an architecture on a tiny model: every row is there, and a rung that fails leaves the others."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import architecture
from benchmarks.architecture import FLUX1_LADDER, KLEIN_LADDER, Rung, Setting
from benchmarks.architecture_report import LatencyRow, Report, StepRow, stated_peak
from benchmarks.random_weights import base_linears, materialize, tiny_model
from fluxsr.models import FLUX_ARCHITECTURES


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The benchmark on a tiny model, uncompiled, with a rung out of memory, one that is broken and one after these."""
    real, output = architecture.train, tmp_path_factory.mktemp("architecture") / "tiny"

    def train(setting, rung, row):
        if rung.name == "48gb":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 24.00 GiB")
        if rung.name == "broken":
            raise KeyError("a part\nand more lines")
        real(setting, rung, row)

    after = next(rung for rung in FLUX1_LADDER.variants if rung.name == "80gb, modulation table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchao.quantization", None)
        patch.setattr(architecture, "train", train)
        patch.setattr(architecture, "FLUX1_LADDER", FLUX1_LADDER._replace(variants=(Rung("broken", "80gb"), after)))
        patch.setattr(architecture, "compile_blocks", lambda model: model)
        architecture.run(output, "flux.1-dev", tiny=True, steps=2, minutes=5, peak_tflops=1e-3)
    return output


@pytest.fixture(scope="module")
def document(measured):
    return json.loads(measured.with_suffix(".json").read_text())


def test_every_rung_is_a_row(document):
    assert [row["rung"] for row in document["steps"]] == ["80gb", "48gb", "24gb", "broken", "80gb, modulation table"]
    for row in document["steps"]:
        assert row["planned_gib"] > 0 and row["model_tflop"] > 0
        assert row["peak_gib"] is None  # the CPU's is not measured


def test_an_error_in_a_rung_leaves_the_others(document):
    errors = {row["rung"]: row["error"] for row in document["steps"]}
    assert errors["80gb"] is None and errors["80gb, modulation table"] is None
    assert errors["48gb"] == "out of memory"
    assert errors["broken"] == "KeyError: 'a part\\nand more lines'"
    assert errors["24gb"].startswith("ValueError: int8 weights need the extra quant: pip install 'fluxsr[quant]'")
    for row in document["steps"]:
        assert (row["seconds"] is None) == (row["error"] is not None)


def test_utilization_is_model_flops_over_time_and_the_stated_peak(document):
    for row in document["steps"]:
        if row["error"] is None:
            assert row["utilization"] == pytest.approx(row["model_tflop"] / row["seconds"] / 1e-3)
    assert document["steps"][1]["utilization"] is None


def test_inference_has_a_row_for_every_form_of_the_model(document):
    forms = [(row["model"], row["adapter"]) for row in document["latencies"]]
    assert forms == [
        ("whole, adapter apart", "apart"),
        ("whole, adapter fused", "fused"),
        ("whole, adapter fused, compiled", "fused"),
        ("folded", "fused"),
        ("folded, compiled", "fused"),
    ]
    for row in document["latencies"]:
        assert row["error"] is None
        assert min(row["encode"], row["transformer"], row["decode"]) > 0


def test_the_table_says_what_was_measured_on_what(measured, document):
    text = measured.with_suffix(".md").read_text()
    assert document["machine"]["date"] in text and f"torch {torch.__version__.split('+')[0]}" in text
    assert "| 48gb: **out of memory** | - | - | - |" in text
    assert text.count("\n| 80gb") == 2 and text.count("\n| folded") == 2
    assert "the numbers mean nothing" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {8}


def test_no_rung_begins_when_the_time_is_up(tmp_path):
    report = architecture.run(tmp_path / "late", tiny=True, steps=1, minutes=-1.0)
    assert len(report.steps) == len(KLEIN_LADDER.presets) + len(KLEIN_LADDER.variants)
    assert {row.error for row in report.steps} == {"not run: the time was up"}
    assert [row.error for row in report.latencies] == ["not run: the time was up"]


def tiny_setting(folder, model: str, device: str = "cpu", deadline: float = 0.0) -> Setting:
    """What is measured, on a tiny model."""
    ladder = architecture.ladder_of(model)._replace(text_tokens=8 if model == "flux.1-dev" else 0)
    changes = (*architecture.architecture(model), *tiny_model(folder / "tiny", model), "--data.crop=64")
    return Setting(ladder, torch.device(device), 1, deadline, changes)


@pytest.mark.parametrize("rung", [*FLUX1_LADDER.presets, *FLUX1_LADDER.variants], ids=lambda rung: rung.name)
def test_a_rung_is_what_its_name_says(rung, tmp_path):
    setting = tiny_setting(tmp_path, "flux.1-dev")
    model = setting.read(rung).options["model"]
    backbone, losses = model["backbone"]["init_args"], model["losses"]
    small = rung.preset == "24gb"
    assert model["modulation_table"] == (rung.preset != "80gb" or "table" in rung.name)
    assert backbone["gradient_checkpointing"] == ("no gradient checkpointing" not in rung.name)
    assert backbone["quantize"] == (
        "nf4" if "nf4" in rung.name else "int8" if small and "bfloat16" not in rung.name else None
    )
    assert model["autoencoder"]["init_args"]["checkpoint_decode"] == ("not checkpointed" not in rung.name)
    crop = 256 if small else 512 if rung.preset == "48gb" or "cropped" in rung.name else None
    assert {losses[name]["init_args"]["crop"] for name in ("mse", "tv_lpips")} == {crop}
    eight_bit = (small and "AdamW" not in rung.name) or "8-bit" in rung.name
    assert model["optimizer"]["class_path"].endswith("AdamW8bit") == eight_bit


@pytest.mark.parametrize("rung", [*KLEIN_LADDER.presets, *KLEIN_LADDER.variants], ids=lambda rung: rung.name)
def test_a_rung_of_klein_is_what_its_name_says(rung, tmp_path):
    experiment = tiny_setting(tmp_path, "flux.2-klein-4b").read(rung)
    model, size = experiment.options["model"], rung.name.partition(",")[0]
    backbone, losses = model["backbone"]["init_args"], model["losses"]
    assert backbone["gradient_checkpointing"] == ("no gradient checkpointing" not in rung.name)
    assert backbone["text_stream"] == ("text stream kept" in rung.name)
    assert backbone["quantize"] == ("nf4" if "nf4" in rung.name else "int8" if size == "12gb" else None)
    crop = None if "whole" in rung.name else 512 if size == "24gb" else 256
    assert {losses[name]["init_args"]["crop"] for name in ("mse", "tv_lpips")} == {crop}
    assert model["optimizer"]["class_path"].endswith("AdamW8bit") == (size != "24gb" and "AdamW" not in rung.name)
    assert experiment.module.backbone.family.name == "FLUX.2"


@pytest.mark.slow
def test_klein_is_measured_like_flux1(tmp_path, monkeypatch):
    monkeypatch.setattr(
        architecture, "KLEIN_LADDER", KLEIN_LADDER._replace(presets=KLEIN_LADDER.presets[:1], variants=())
    )
    monkeypatch.setattr(architecture, "compile_blocks", lambda model: model)
    report = architecture.run(tmp_path / "klein", tiny=True, steps=1, minutes=5, peak_tflops=1e-3)
    (row,) = report.steps
    assert row.error is None and row.seconds > 0 and row.planned_gib > 0 and row.model_tflop > 0
    assert [row.error for row in report.latencies] == [None] * 5
    assert "tiny flux.2-klein-base-4b" in (tmp_path / "klein.md").read_text()


@pytest.mark.parametrize("model", ["flux.2-dev", "flux.1-schnell"])
def test_any_architecture_is_read_by_its_name(model):
    ladder = architecture.ladder_of(model)
    setting = Setting(ladder, torch.device("cpu"), 1, 0.0, architecture.architecture(model))
    backbone = setting.read(ladder.presets[0]).module.backbone
    config = FLUX_ARCHITECTURES[model]
    assert backbone.transformer.config["num_layers"] == config["num_layers"]
    assert (backbone.guidance is None) != config["guidance_embeds"]


def test_an_unknown_architecture_is_named(capsys):
    with pytest.raises(SystemExit):
        architecture.main(["--tiny", "--model", "flux.4"])
    assert "unknown architecture 'flux.4'; known: flux.1-dev" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["flux.1-dev", "flux.2-klein-4b"])
def test_weights_are_made_for_all_that_has_none(tmp_path, model):
    setting = tiny_setting(tmp_path, model)
    module = setting.read(setting.ladder.presets[0]).module
    dtypes = {name: parameter.dtype for name, parameter in module.named_parameters()}
    trained = set(module.trained.parameters())
    torch.manual_seed(0)
    materialize(module, torch.device("cpu"))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        assert not tensor.is_meta, name
        assert tensor.isfinite().all(), name
        assert dtypes.get(name, tensor.dtype) == tensor.dtype, name
    assert set(module.trained.parameters()) == trained
    # No weight matrix is zero: then every part of the step has a gradient to pass on.
    assert all(parameter.any() for name, parameter in module.named_parameters() if parameter.ndim > 1)


def test_what_is_quantized_is_the_blocks_linears(tmp_path):
    setting = tiny_setting(tmp_path, "flux.1-dev")
    backbone = setting.read(setting.ladder.presets[0]).module.backbone
    chosen = base_linears(backbone)
    names = {name for name, layer in backbone.transformer.named_modules() if layer in chosen}
    assert "transformer_blocks.0.attn.to_q.base_layer" in names and "transformer_blocks.0.norm1.linear" in names
    assert "single_transformer_blocks.0.proj_out.base_layer" in names
    assert not {
        name for name in names if "lora_" in name or name.startswith(("x_embedder", "context_embedder", "proj_out"))
    }


def test_the_stated_peak_is_the_devices_own():
    assert stated_peak("NVIDIA H100 80GB HBM3") == 989
    assert stated_peak("NVIDIA H100 PCIe") == 756
    assert stated_peak("NVIDIA A100-SXM4-80GB") == 312
    assert stated_peak("NVIDIA GeForce RTX 4090") == 165.2
    assert stated_peak("CPU, x86_64") is None


def test_rows_are_on_disk_as_soon_as_they_are_known(tmp_path):
    report = Report(
        tmp_path / "new" / "report.v1", "flux.1-dev", {"device": "none", "date": "today", "versions": {}}, None
    )
    report.add(StepRow("first", seconds=1.0, model_tflop=2.0))
    assert json.loads((tmp_path / "new" / "report.v1.json").read_text())["steps"][0]["utilization"] is None
    report.add(LatencyRow("second", encode=0.5, transformer=1.0, decode=0.25))
    assert "1,750.0" in (tmp_path / "new" / "report.v1.md").read_text()


def test_without_a_gpu_the_real_size_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        architecture.main([])
    assert "--tiny tries the script on the CPU" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs_all_of_it(tmp_path, capsys):
    """Every rung and the compiler too."""
    architecture.main(["--tiny", "--steps", "1", "--output", str(tmp_path / "all")])
    text = capsys.readouterr().out
    assert text == (tmp_path / "all.md").read_text() + "\n"
    for rung in (*KLEIN_LADDER.presets, *KLEIN_LADDER.variants):
        assert f"| {rung.name}" in text


@pytest.mark.gpu
def test_memory_is_counted_on_a_gpu(tmp_path):
    setting = tiny_setting(tmp_path, "flux.1-dev", "cuda:0", float("inf"))
    row = StepRow("80gb")
    architecture.train(setting, setting.ladder.presets[0], row)
    assert row.peak_gib > 0 and row.reserved_gib >= row.peak_gib
