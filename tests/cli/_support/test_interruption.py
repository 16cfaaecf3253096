"""A real SIGINT in a real training: the checkpoint, the exit code, and the way on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Callback

from fluxsr.cli._support.last_checkpoint import last_checkpoint
from tests.cli.test_fit import CONFIGS, fit

ROOT = Path(__file__).parents[3]
STEP = "tests.cli._support.test_interruption.InterruptInStep"


class InterruptInStep(Callback):
    """Sends this process SIGINT amid a training step, so many times."""

    def __init__(self, step: int = 3, times: int = 1) -> None:
        self.step = step
        self.times = times

    def on_before_zero_grad(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def interrupted(folder: Path, photos: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a training that interrupts itself."""
    command = [
        sys.executable, "-m", "fluxsr", "fit", "--config", str(CONFIGS / "fluxsr_nano.yaml"), "--data.pairs=null",
        f"--data.photos={photos}", "--trainer.accelerator=cpu", "--trainer.max_steps=50",
        f"--trainer.default_root_dir={folder}", f"--trainer.callbacks+={STEP}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, photos) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A training that got one SIGINT in its fourth step."""
    folder = tmp_path_factory.mktemp("stopped")
    return folder, interrupted(folder, photos)


def test_the_step_is_finished_and_the_way_on_is_said(stopped):
    folder, result = stopped
    assert result.returncode == 130, result.stderr
    (path,) = folder.rglob("*.ckpt")
    assert path.name == "last.ckpt"
    content = torch.load(path, weights_only=True)
    steps = {int(entry["step"]) for entry in content["optimizer_states"][0]["state"].values()}
    assert steps == {content["global_step"]} == {4}
    assert not list(folder.rglob(".tmp-*"))
    (line,) = [line for line in result.stderr.splitlines() if "stopped after step" in line]
    assert str(path) in line
    assert line.startswith("fluxsr: stopped after step 4: ")
    assert line.endswith("--ckpt_path last")
    assert "Traceback" not in result.stderr


def test_the_command_that_it_names_goes_on(stopped, photos):
    folder, _ = stopped
    arguments = [
        "--data.pairs=null",
        f"--data.photos={photos}",
        f"--trainer.default_root_dir={folder}",
        "--ckpt_path=last",
    ]
    cli = fit(folder, "fluxsr_nano.yaml", *arguments, steps=6)
    assert cli.trainer.global_step == 6
    content = torch.load(last_checkpoint({"default_root_dir": str(folder)}), weights_only=True)
    steps = {int(entry["step"]) for entry in content["optimizer_states"][0]["state"].values()}
    assert steps == {6}  # the optimizer of the first run went on


@pytest.mark.slow
@pytest.mark.parametrize(("step", "times"), [(0, 1), (3, 2)])
def test_before_the_first_step_and_the_second_time_it_stops_at_once(tmp_path, photos, step, times):
    result = interrupted(
        tmp_path, photos, f"--trainer.callbacks.init_args.step={step}", f"--trainer.callbacks.init_args.times={times}"
    )
    assert result.returncode == 130, result.stderr
    assert "no new checkpoint was written" in result.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
