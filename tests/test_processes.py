"""Two processes on the CPU make what one makes; all of it under a watchdog, since what goes wrong here hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.cli.main import main
from fluxsr.data import PairStore
from fluxsr.processes import ALONE, Processes, launch, leave_group

ROOT = Path(__file__).parents[1]
WATCHDOG = 120  # seconds
PAIRS = ["pairs", "--num=40", "--steps=4", "--size=32", "--shard_size=2", "--batch_size=2", "--device=cpu"]


def start(*arguments: object, **variables: object) -> subprocess.Popen[str]:
    return start_python("-m", "fluxsr", *arguments, **variables)


def start_python(*arguments: object, **variables: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment | {name: str(value) for name, value in variables.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end; returns the exit code, and what was printed."""
    try:
        out, errors = process.communicate(timeout=WATCHDOG)
    finally:
        process.kill()
    return process.returncode, out, errors


def start_as_torchrun(*arguments: object) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    return [start(*arguments, **common, RANK=rank, LOCAL_RANK=rank) for rank in range(2)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results_without_times(folder: Path) -> str:
    """The JSON file of an evaluation, its keys in their order."""
    results = json.loads((folder / "out.json").read_text().replace(str(folder), ""))
    del results["created"]
    for entry in results["systems"].values():
        for part in ("cost", "cost_summary"):
            assert bool(entry.pop(part, None)) == ("macs" in entry)
    return json.dumps(results)


@pytest.fixture
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_process_share_of_the_pairs_is_made_on_resume_and_the_store_is_that_of_one(tmp_path, one_thread):
    main([*PAIRS, "--output", str(tmp_path / "one")])
    folder = tmp_path / "two"
    first, second = start_as_torchrun(*PAIRS, "--output", folder)
    give_up = time.monotonic() + WATCHDOG
    while not list(folder.glob(".done-*")) and second.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    second.send_signal(signal.SIGKILL)
    assert finish(second)[0] == -signal.SIGKILL
    code, _, errors = finish(first)
    assert code == 2 and errors.count("fluxsr: error:") == 1 and "Traceback" not in errors, errors
    # The first process did its own share all the same.
    listed = [PairStore.open(folder).shard_record(number) is not None for number in range(20)]
    assert listed == [True, False] * 10

    code, out, errors = finish(start(*PAIRS, "--output", folder, "--devices", "2"))
    assert code == 0 and out.count("\n") == 1 and "done before" in out, errors
    assert content(folder) == content(tmp_path / "one")


def test_results_are_those_of_one_process_and_a_mistake_of_all_is_said_once(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    numbers = np.random.default_rng(0)
    for number in range(5):
        pixels = numbers.integers(0, 256, (16, 16 + 4 * number, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    script = ("-m", "tests.in_two_processes")
    code, _, errors = finish(start_python(*script, tmp_path / "one", 1))
    assert code == 0, errors
    code, _, errors = finish(start_python(*script, tmp_path / "two", 2))
    assert code == 1 and errors.count("ValueError: all of them say this") == 1, errors
    assert content(tmp_path / "one" / "pictures") == content(tmp_path / "two" / "pictures")
    assert len(content(tmp_path / "two" / "pictures")) == 5
    alone, together = (results_without_times(tmp_path / name) for name in ("one", "two"))
    assert alone == together
    assert content(tmp_path / "one" / "kept") == content(tmp_path / "two" / "kept")
    assert not list((tmp_path / "two").glob("*.part"))


def test_shares_are_dealt_out_whole():
    everything = list(range(7))
    shares = [Processes(rank, 3).share(everything) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == everything
    assert sorted(map(len, shares)) == [2, 2, 3]
    assert ALONE.share(everything) == everything and ALONE.gather("mine") == ["mine"] and ALONE.first


@pytest.mark.parametrize(
    ("devices", "device", "environment", "named"),
    [
        (0, "cpu", {}, "0"),
        (-2, "cpu", {}, "-2"),
        (2, "mps", {}, "mps"),
        (2, "cuda:1", {}, "cuda:1"),
        (3, "cpu", {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}, "torchrun started 2"),
        (3, "cpu", {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}, "SLURM started 2"),
        (1, "cpu", {"SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_NUM_NODES": "2"}, "5 processes on 2 machines"),
    ],
)
def test_numbers_of_devices_that_cannot_be_are_refused(monkeypatch, devices, device, environment, named):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=named), launch(devices, device):
        pass


@pytest.mark.parametrize("devices", [1, "auto"])
def test_one_process_loads_no_lightning(devices):
    code = (
        "import sys; from fluxsr.processes import launch\n"
        f"with launch({devices!r}, 'cpu') as processes: assert processes.world == 1\n"
        "assert not {'lightning', 'torch.distributed.fsdp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_leaving_the_group_is_safe_whether_there_is_one_or_not_and_while_an_error_is_on_its_way(tmp_path):
    def fail():
        try:
            raise KeyError
        finally:
            leave_group()

    leave_group()
    for number in range(2):
        address = f"file://{tmp_path}/{number}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
        if number:
            with pytest.raises(KeyError):
                fail()
        else:
            leave_group()
        assert not torch.distributed.is_initialized()
