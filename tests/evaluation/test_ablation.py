"""The ablation runner: what it reads, what it runs again and what not, and the table."""

from __future__ import annotations

import json
import os
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from fluxsr.cli.main import main
from fluxsr.digest import file_digest
from fluxsr.evaluation.ablation import Variant, read_grid, run_ablation

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
GRID = """\
config: student_nano.yaml
overrides:
  trainer.max_steps: 1
  trainer.val_check_interval: null
runs:
  whole: {}
  without FTD:
    model.flow_weight: 0
"""


@pytest.fixture
def grid(tmp_path) -> Path:
    """A grid of two trainings of one step each."""
    text = (CONFIGS / "student_nano.yaml").read_text()
    text = text.replace("batch_size: 8", "batch_size: 2").replace("samples_per_image: 64", "samples_per_image: 1")
    assert "net: vgg" in text  # which needs a download
    text = text.replace("net: vgg", "net: nano")
    (tmp_path / "student_nano.yaml").write_text(text.replace("every_n_train_steps: 250", "every_n_train_steps: 1"))
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path / "grid.yaml"


def test_the_shipped_grid_names_overrides_of_its_configuration():
    variants = {variant.name: variant for variant in read_grid(str(CONFIGS / "ablation_nano.yaml"), "out", "photos")}
    assert next(iter(variants)) == "FluxSR"
    without = variants["without FTD"]
    assert without.folder == Path("out/without-ftd")
    assert {"--model.flow_weight=0", "--trainer.val_check_interval=null"} <= set(without.arguments)
    assert {"--model.seed=1", "--data.seed=1"} <= set(variants["without FTD, seed 1"].arguments)
    assert len({variant.folder for variant in variants.values()}) == len(variants) == 16
    assert all(variant.model == variant.weights for variant in variants.values())


def test_a_grid_of_adapters_trains_without_photos_and_names_their_base():
    (variant, *_) = read_grid(str(CONFIGS / "ablation_ftd_nano.yaml"), "out", None)
    assert variant.base == "nano" and variant.model == Path("out/fluxsr/model.safetensors")
    assert not any(argument.startswith("--data.photos") for argument in variant.arguments)


@pytest.mark.parametrize("grid", ["ablation_nano.yaml", "ablation_flowsr_nano.yaml", "ablation_ftd_nano.yaml"])
def test_every_shipped_override_is_a_key_of_its_configuration(grid):
    """Parsed as `fluxsr fit` would, each run differs from the configuration by what it names."""
    printed = set()
    for variant in read_grid(str(CONFIGS / grid), "out", "photos"):
        with redirect_stdout(StringIO()) as text, pytest.raises(SystemExit) as stopped:
            main(["fit", *variant.arguments, "--print_config"])
        assert stopped.value.code in (0, None), variant.name
        printed.add(re.sub(r"default_root_dir: .*", "", text.getvalue()))
    assert len(printed) == len(read_grid(str(CONFIGS / grid), "out", "photos"))


@pytest.mark.slow
def test_two_trainings_make_one_table_and_are_not_repeated(grid, tmp_path, photos, capsys):
    arguments = {
        "output": str(tmp_path / "out"),
        "photos": str(photos),
        "hr": str(photos),
        "metrics": ["psnr", "lpips_nano"],
        "say": print,
    }
    run_ablation(str(grid), **arguments)
    assert "2 trainings, 0 of them finished" in capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert list(table["systems"]) == ["bicubic", "whole", "without FTD"]
    assert all(len(system["images"]) == 4 for system in table["systems"].values())
    assert "without FTD" in (tmp_path / "out" / "table.md").read_text()
    weights = tmp_path / "out" / "whole" / "backbone.safetensors"
    before = weights.stat().st_mtime_ns
    run_ablation(str(grid), **arguments)
    assert "2 of them finished already" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before

    grid.write_text(GRID.replace("max_steps: 1", "max_steps: 2"))
    with pytest.raises(ValueError, match=r"whole holds a training with other settings .*max_steps=.*; delete it"):
        run_ablation(str(grid), **arguments)


@pytest.mark.slow
def test_an_adapter_is_measured_in_its_base(tmp_path, photos):
    text = (CONFIGS / "fluxsr_nano.yaml").read_text().replace("batch_size: 8", "batch_size: 2")
    (tmp_path / "fluxsr_nano.yaml").write_text(text.replace("samples_per_image: 8", "samples_per_image: 1"))
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "config: fluxsr_nano.yaml\nbase: nano\noverrides: {data.pairs: null, trainer.max_steps: 1}\nruns: {a: {}}"
    )
    table = run_ablation(str(grid), str(tmp_path / "out"), str(photos), hr=str(photos), metrics=["psnr"])
    assert table is not None and len(table["systems"]["a"]["images"]) == 4
    assert (tmp_path / "out" / "a" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_unfinished_training_goes_on_from_its_checkpoint(grid, tmp_path, photos):
    (variant, _) = read_grid(str(grid), str(tmp_path / "out"), str(photos))
    variant.train()
    (tmp_path / "out" / "whole" / "finished.json").unlink()
    longer = [argument.replace("max_steps=1", "max_steps=2") for argument in variant.arguments]
    # The learning rate's cycle is the configuration's own and ends with the first run.
    longer.append("--model.scheduler.init_args.total_steps=1")
    again = Variant(variant.name, variant.folder, longer)
    with pytest.raises(ValueError, match=r"the training 'whole' failed: .*Tried to step"):
        again.train()
    assert "Restored all states from the checkpoint" in (variant.folder / "log.txt").read_text()


def test_the_newest_last_checkpoint_below_the_folder_is_the_one(tmp_path):
    variant = Variant("a", tmp_path / "a", [])
    assert variant.checkpoint is None
    for age, name in enumerate(("step=9.ckpt", "version_1/checkpoints/last-v1.ckpt", "checkpoints/last.ckpt")):
        path = variant.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (100 - age, 100 - age))
    # Interrupted where another run's last.ckpt lies already, a training leaves last-v1.ckpt.
    assert variant.checkpoint == variant.folder / "version_1/checkpoints/last-v1.ckpt"


@pytest.mark.parametrize("record", ["begun.json", "finished.json"])
def test_a_training_is_finished_with_its_own_settings_only(grid, tmp_path, record):
    (variant, _) = read_grid(str(grid), str(tmp_path / "out"), "photos")
    variant.folder.mkdir(parents=True)
    settings = {"arguments": variant.arguments, "config": file_digest(grid.parent / "student_nano.yaml")}
    (variant.folder / record).write_text(json.dumps(settings))
    assert not variant.is_finished()
    variant.weights.touch()
    assert variant.is_finished() == (record == "finished.json")
    (variant.folder / record).write_text(json.dumps(settings | {"config": "of another file"}))
    with pytest.raises(ValueError, match=r"student_nano.yaml"):
        variant.is_finished()


@pytest.mark.slow
def test_a_failing_training_ends_with_what_it_said(grid, tmp_path, photos):
    grid.write_text(GRID.replace("model.flow_weight: 0", "model.flow_weight: -1").replace("whole: {}", ""))
    log = tmp_path / "out" / "without-ftd" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\xff, which is no UTF-8\n")
    with pytest.raises(ValueError, match=r"'without FTD' failed: .*flow_weight must not be negative, got -1.*log.txt"):
        run_ablation(str(grid), str(tmp_path / "out"), str(photos))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("runs: {a: {}}", "config"),
        (GRID + "more: 1", "nothing else"),
        (GRID.replace("student_nano", "nowhere"), "'nowhere.yaml'"),
        ("config: null\nruns: {d: {}}", "None"),
        ("config: student_nano.yaml\nruns: {}", "runs"),
        ("config: student_nano.yaml\nruns: {a b: {}, a-b: {}}", "'a-b'"),
        ("config: [", "is no YAML"),
        ("config: student_nano.yaml\nruns: {d: 5}", "d in .* got 5"),
        ("config: student_nano.yaml\noverrides: [a]\nruns: {d: {}}", r"overrides in .* got \['a'\]"),
        ("config: student_nano.yaml\nruns: {'***': {}}", r"'\*\*\*'"),
        ("config: student_nano.yaml\nruns: {T_L = 0.5: {}}", "'T_L = 0.5'"),
    ],
)
def test_bad_grids_are_named(grid, tmp_path, text, named):
    grid.write_text(text)
    with pytest.raises(ValueError, match=named):
        read_grid(str(grid), str(tmp_path), "photos")


def test_values_are_written_as_yaml(grid):
    grid.write_text(
        "config: student_nano.yaml\nruns: {a: {model.losses.l1: {init_args: {crop: null}}, data.cache: false}}"
    )
    (variant,) = read_grid(str(grid), "out", "photos")
    assert variant.arguments[-2:] == ['--model.losses.l1={"init_args": {"crop": null}}', "--data.cache=false"]


def test_a_missing_grid_and_lr_without_hr_are_named(grid, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.yaml does not exist"):
        read_grid("nowhere.yaml", str(tmp_path), "photos")
    with pytest.raises(ValueError, match="lr names the LR images of hr"):
        run_ablation(str(grid), str(tmp_path), "photos", lr="lr")
