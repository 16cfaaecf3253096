"""Two processes with different amounts of work end, and find what one process finds; a watchdog ends those that hang."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import run_script

pytestmark = pytest.mark.torch("2.11")


def save(folder: Path, sizes) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, side in enumerate(sizes):
        coarse = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def run(photos: Path, mixed: Path, folder: Path, devices: int, strategy: str) -> dict:
    folder.mkdir()
    run_script("uneven_work.py", devices, photos, mixed, folder, devices, strategy, timeout=200)
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("in_step")
    photos, mixed = save(folder / "photos", [64] * 4), save(folder / "mixed", [24, 96, 40])
    settings = {"alone": (1, "auto"), "ddp": (2, "ddp"), "fsdp2": (2, "fsdp2")}
    return {name: run(photos, mixed, folder / name, *setting) for name, setting in settings.items()}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_validation_and_test_are_over_each_photo_once(runs, strategy):
    alone, together = runs["alone"], runs[strategy]
    for stage in ("tiles", "test"):
        assert set(together[stage]) == set(alone[stage]) and len(alone[stage]) >= 2
        for name, value in alone[stage].items():
            assert together[stage][name] == pytest.approx(value, rel=1e-4), name
    assert {"val/artefact_db", "val/artefact_db_hr"} <= set(alone["tiles"])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_uneven_prediction_and_previews_end(runs, strategy):
    assert runs["alone"]["predicted"] == 3 and runs[strategy]["predicted"] in (1, 2)  # the first process's share
    assert runs[strategy]["pictures"] == runs["alone"]["pictures"] > 0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_one_measured_time_rules_on_every_process(runs, strategy):
    assert len(runs["alone"]["lr_times"]) == 1
    first, second = runs[strategy]["lr_times"]
    assert first == second == runs["alone"]["lr_times"][0] and 0.02 <= first <= 0.9


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_rows_that_call_other_models_make_the_same_steps(runs, strategy):
    assert runs[strategy]["losses"] == pytest.approx(runs["alone"]["losses"], rel=1e-4)
    assert runs[strategy]["weights"] == pytest.approx(runs["alone"]["weights"], rel=1e-5)


def test_passes_with_gradient_that_only_some_make_are_refused(runs):
    assert "refused" not in runs["alone"] and "strategy ddp" in runs["fsdp2"]["refused"]
