"""Who may import whom: each package is imported in a fresh process, and sys.modules tells."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
    "fluxsr.data": ["diffusers", "peft", "lpips", "fluxsr.flows", "fluxsr.losses", "fluxsr.models", "fluxsr.training"],
    "fluxsr.training": ["fluxsr.cli", "fluxsr.evaluation", "fluxsr.inference", "fluxsr.planning"],
    "fluxsr.inference.upscaler": ["lightning", "lpips", "cv2", "fluxsr.losses", "fluxsr.training", "fluxsr.cli"],
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
