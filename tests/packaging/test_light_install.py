"""What works beside torch, numpy and safetensors alone, as after `pip install --no-deps fluxsr`: losses and flows."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fluxsr

ROOT = Path(fluxsr.__file__).parent.parent


def closure(*names: str) -> set[str]:
    """The distributions that are installed with some others, extras and other systems' left out."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = re.split(r"[^A-Za-z0-9._-]", pending.pop())[0]
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.metadata["Name"] not in found:
            found.add(distribution.metadata["Name"])
            pending += [one for one in distribution.requires or [] if "extra ==" not in one]
    return found


@pytest.fixture(scope="module")
def only_torch(tmp_path_factory) -> Path:
    """A folder with links to the packages of torch, numpy and safetensors, and to fluxsr, and to nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    for name in closure("torch", "numpy", "safetensors"):
        for file in importlib.metadata.distribution(name).files or []:
            top = file.parts[0]
            if top not in ("..", "bin", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(file.locate()).parents[len(file.parts) - 1] / top)
    (folder / "fluxsr").symlink_to(ROOT / "fluxsr")
    return folder


def run(folder: Path, code: str) -> subprocess.CompletedProcess:
    # -S: nothing of this environment's site-packages.
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("FLUXSR_WEIGHTS", None)
    return subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment, cwd=folder
    )


def test_there_is_nothing_else(only_torch):
    missing = (
        "lightning",
        "diffusers",
        "peft",
        "lpips",
        "torchmetrics",
        "omegaconf",
        "PIL",
        "cv2",
        "rich",
        "torchvision",
    )
    result = run(only_torch, f"import importlib.util as u; print([n for n in {missing} if u.find_spec(n)])")
    assert result.stdout.strip() == "[]", result.stderr


def test_losses_train_an_image(only_torch):
    code = """
import torch
import fluxsr.losses as losses
sr = torch.rand(1, 3, 32, 32, requires_grad=True); hr = torch.rand(1, 3, 32, 32)
total = losses.TVLPIPSLoss(net="nano")(sr, hr) + losses.L1Loss()(sr, hr) + losses.CharbonnierLoss()(sr, hr)
total = total + losses.AttentionDiversificationLoss()([torch.randn(1, 8, 4, requires_grad=True)])
total.backward()
print(float(sr.grad.abs().sum()) > 0)
"""
    result = run(only_torch, code)
    assert result.stdout.strip() == "True", result.stderr


def test_objectives_train_a_model(only_torch):
    code = """
import torch
from fluxsr.flows import ConsistencySRFlow, FlowTrajectoryDistillation, LatentPair
pair = LatentPair(*torch.randn(3, 2, 4, 8, 8))
model = torch.nn.Conv2d(4, 4, 3, padding=1)
v = lambda xt, t: model(xt)
loss = FlowTrajectoryDistillation()(v, pair).loss + ConsistencySRFlow()(v, pair, teacher=v, target=v).loss
loss.backward()
print(float(model.weight.grad.norm()) > 0)
"""
    result = run(only_torch, code)
    assert result.stdout.strip() == "True", result.stderr


def test_what_is_missing_is_said(only_torch):
    result = run(only_torch, "import fluxsr.losses as l; l.LPIPSLoss('vgg')")
    assert result.returncode and re.search(r"pip install|not found", result.stderr.splitlines()[-1] + result.stderr)
