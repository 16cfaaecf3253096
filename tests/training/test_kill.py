"""kill -9 at random moments, in training and in `fluxsr pairs`: what is left always goes on, to the same end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fluxsr.data import PairStore

ROOT = Path(__file__).parents[2]
KILLS = 20


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def kill_soon_after_a_write(process: subprocess.Popen, folder: Path, delay: float) -> bool:
    """Kill the process some time after it first wrote something; says whether it was still running."""
    before = time.time()
    while process.poll() is None and newest(folder) < before:
        time.sleep(0.005)
    time.sleep(delay)
    alive = process.poll() is None
    if alive:
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()[-2000:]
    return alive


def newest(folder: Path) -> float:
    """The time of the last write in a folder whose files are being renamed."""
    times = [0.0]
    for file in folder.rglob("*"):
        try:
            times.append(file.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


@pytest.mark.slow
def test_training_survives_kill_9(photos, tmp_path):
    script = str(Path(__file__).with_name("interrupted.py"))
    steps, moments = 2000, random.Random(0)
    folder, step = tmp_path / "killed", 0
    folder.mkdir()
    for _ in range(KILLS):
        process = start(script, str(photos), str(folder), str(steps))
        assert kill_soon_after_a_write(process, folder, moments.uniform(0, 1.0)), "too few steps: it ended by itself"
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] > step, "steps were lost"
        step = checkpoint["global_step"]
    end = step + 5
    for name in ("killed", "straight"):
        process = start(script, str(photos), str(tmp_path / name), str(end))
        assert process.wait() == 0, process.stderr.read().decode()[-2000:]
    killed, straight = (torch.load(tmp_path / name / "end.pt", weights_only=True) for name in ("killed", "straight"))
    assert killed["step"] == straight["step"] == end
    for part in ("weights", "average"):
        for name, value in straight[part].items():
            assert torch.equal(killed[part][name], value), (part, name)


@pytest.mark.slow
def test_pairs_survive_kill_9(tmp_path):
    def pairs(name: str) -> list[str]:
        options = ["--num", "2000", "--steps", "2", "--size", "16", "--shard_size", "8", "--batch_size", "8"]
        return ["-m", "fluxsr", "pairs", "--output", str(tmp_path / name), *options]

    moments, killed, done = random.Random(1), 0, 0
    while killed < KILLS:
        (tmp_path / "killed").mkdir(exist_ok=True)
        if not kill_soon_after_a_write(start(*pairs("killed")), tmp_path / "killed", moments.uniform(0, 0.4)):
            break
        killed += 1
        missing = sum(len(indices) for indices in PairStore.open(tmp_path / "killed").missing_shards())
        assert 2000 - missing >= done, "pairs were lost"
        done = 2000 - missing
    assert killed == KILLS, "too few pairs: it ended by itself"
    for name in ("killed", "straight"):
        process = start(*pairs(name))
        assert process.wait() == 0, process.stderr.read().decode()[-2000:]
    shards = sorted((tmp_path / "straight").glob("*.safetensors"))
    assert len(shards) == 250
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "killed" / shard.name).read_bytes(), shard.name
