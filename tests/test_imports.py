"""Who may import whom: each package is imported in a fresh process, and sys.modules tells."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

import pytest

from fluxsr.cli.main import COMMANDS

ROOMS = ("data", "flows", "losses", "models", "training", "inference", "evaluation", "planning", "cli")
# package -> what importing it must not load. `fluxsr.x` stands for a room of the library.
FORBIDDEN = {
    "fluxsr": ["torch", "lightning", "diffusers", "peft"],
    "fluxsr.protocols": ["lightning", "diffusers", "peft", "fluxsr.flows", "fluxsr.losses", "fluxsr.models"],
    "fluxsr.flows": ["lightning", "diffusers", "peft", "torchvision", "lpips", "fluxsr.losses", "fluxsr.models", "fluxsr.data"],
    "fluxsr.losses": [
        "lightning", "diffusers", "peft", "torchvision", "lpips", "torchmetrics", "transformers",
        "fluxsr.flows", "fluxsr.models", "fluxsr.data", "fluxsr.training",
    ],
    "fluxsr.models": ["lightning", "lpips", "fluxsr.flows", "fluxsr.losses", "fluxsr.data", "fluxsr.training", "fluxsr.cli"],
    "fluxsr.images": ["torch", "PIL", "cv2", "lightning"],
    "fluxsr.images.read": ["lightning", "diffusers", "torchvision", "cv2", *(f"fluxsr.{room}" for room in ROOMS)],
    "fluxsr.images.write": ["lightning", "diffusers", "torchvision", "cv2", *(f"fluxsr.{room}" for room in ROOMS)],
    "fluxsr.data": ["diffusers", "peft", "lpips", "fluxsr.flows", "fluxsr.losses", "fluxsr.models", "fluxsr.training"],
    "fluxsr.training": ["fluxsr.cli", "fluxsr.evaluation", "fluxsr.inference", "fluxsr.planning"],
    "fluxsr.inference": ["torch", "lightning", "diffusers", "fluxsr.training", "fluxsr.cli"],
    "fluxsr.inference.upscaler": [
        "lightning", "torchmetrics", "tensorboard", "matplotlib", "skimage", "lpips", "cv2",
        "fluxsr.losses", "fluxsr.training", "fluxsr.cli",
    ],
    "fluxsr.evaluation": ["torch", "lightning", "diffusers", "gradio", "pyiqa", "fluxsr.training", "fluxsr.cli"],
    "fluxsr.evaluation.run": ["lightning", "diffusers", "gradio", "pyiqa", "spandrel", "torchmetrics", "fluxsr.training"],
    "fluxsr.planning": ["fluxsr.cli", "fluxsr.inference", "fluxsr.evaluation"],
    "fluxsr.cli.main": ["torch", "lightning", "diffusers", "fluxsr.models", "fluxsr.training"],
}  # fmt: skip


def loaded_by(package: str) -> set[str]:
    """The modules that are loaded after importing ``package`` in a fresh process."""
    code = f"import sys, json, {package}; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_rooms_know_only_whom_they_may(package):
    loaded = loaded_by(package)
    found = [name for name in FORBIDDEN[package] if any(m == name or m.startswith(f"{name}.") for m in loaded)]
    assert not found, f"{package} loads {found}"


def test_upscaling_loads_nothing_that_training_evaluation_or_figures_need():
    """With a nano model, from the import to the picture."""
    code = (
        "import sys, json\n"
        "import numpy as np\n"
        "from fluxsr.inference import Upscaler\n"
        "Upscaler.from_pretrained(device='cpu')(np.zeros((12, 10, 3), np.uint8), scale=2)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(result.stdout.splitlines()[-1]))
    assert "diffusers" in loaded
    unwanted = {"lightning", "pytorch_lightning", "torchmetrics", "tensorboard", "matplotlib", "skimage", "lpips"}
    assert not loaded & unwanted


def test_the_help_of_all_commands_imports_no_torch():
    code = "import sys; from fluxsr.cli.main import main; main(['--help']); assert 'torch' not in sys.modules"
    assert "upscale" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# ---- times ---------------------------------------------------------------------------------------------------


def seconds(*commands: list[str], rounds: int = 7) -> list[float]:
    """The median time of each command; they take turns, so that a busy machine slows all of them alike."""
    taken: list[list[float]] = [[] for _ in commands]
    for _ in range(rounds):
        for command, times in zip(commands, taken, strict=True):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


@pytest.mark.slow
def test_losses_take_at_most_three_tenths_of_a_second_beyond_torch():
    torch, losses = seconds(*([sys.executable, "-c", f"import {name}"] for name in ("torch", "fluxsr.losses")))
    print(f"torch {torch:.2f} s, fluxsr.losses {losses:.2f} s")
    assert losses - torch <= 0.3


@pytest.mark.slow
def test_the_help_of_all_commands_takes_half_a_second():
    (taken,) = seconds([sys.executable, "-m", "fluxsr", "--help"])
    print(f"fluxsr --help {taken:.2f} s")
    assert taken <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_takes_at_most_half_as_long_again_as_lightning(command):
    lightning, own = seconds(
        [sys.executable, "-c", "import lightning"], [sys.executable, "-m", "fluxsr", command, "--help"]
    )
    print(f"lightning {lightning:.2f} s, fluxsr {command} --help {own:.2f} s")
    assert own <= 1.5 * lightning
