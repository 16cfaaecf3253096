"""Two processes with different amounts of work end, and find what one process finds; a watchdog ends those that hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.torch("2.11")
ROOT = Path(__file__).parents[2]


def save(folder: Path, sizes) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, side in enumerate(sizes):
        coarse = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def run(photos: Path, mixed: Path, folder: Path, devices: int, strategy: str) -> dict:
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"] if devices > 1 else []
    script = str(Path(__file__).with_name("uneven_work.py"))
    arguments = [sys.executable, *launcher, script, str(photos), str(mixed), str(folder), str(devices), strategy]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
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
def test_rows_that_call_other_models_make_the_same_steps(runs, strategy):
    assert runs[strategy]["losses"] == pytest.approx(runs["alone"]["losses"], rel=1e-4)
    assert runs[strategy]["weights"] == pytest.approx(runs["alone"]["weights"], rel=1e-5)


def test_passes_with_gradient_that_only_some_make_are_refused(runs):
    assert "refused" not in runs["alone"] and "strategy ddp" in runs["fsdp2"]["refused"]
