"""Two CPU processes over gloo see the same global batch as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

SCRIPT = """
import json, logging, sys, warnings
import torch
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)
from fluxsr.data import SRDataModule
from fluxsr.flows import RectifiedSRFlow
from fluxsr.losses import MSELoss
from fluxsr.training import Adversary, ImageTerm
from tests.training.conftest import tiny_module, tiny_trainer
from tests.training.test_adversary import adversarial_module
from tests.training.test_roles import stage_two

photos, devices, batch_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
make = {
    "ftd": lambda: tiny_module(losses={"mse": ImageTerm(MSELoss())}),
    "stage 1": lambda: tiny_module(losses={}, objective=RectifiedSRFlow(velocity_weight=1.0)),
    "stage 2": stage_two,
    # Adam divides the heads' tiny gradients by themselves, rounding and all; plain descent shows whether they agree.
    "adversary": lambda: adversarial_module(
        Adversary(width=8, optimizer=lambda heads: torch.optim.SGD(heads, lr=0.1)),
        stage_two=True,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    ),
}
module = make[sys.argv[4]]()
ddp = "ddp" if module.automatic_optimization else "ddp_find_unused_parameters_true"
trainer = tiny_trainer(max_steps=2, devices=devices, strategy=ddp if devices > 1 else "auto")
trainer.fit(module, datamodule=SRDataModule(photos=photos, crop=32, batch_size=batch_size, samples_per_image=4, seed=3))
if trainer.is_global_zero:
    sums = {name: [float(p.double().sum()), float(p.double().norm())] for name, p in module.trainable_state().items()}
    print(json.dumps({"loss": float(trainer.callback_metrics["train/loss"]), "weights": sums}))
"""


def train(photos: Path, devices: int, batch_size: int, kind: str) -> dict:
    """Train in a process of its own; DDP starts the second one itself."""
    script = photos.parent / "train.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    arguments = [sys.executable, str(script), str(photos), str(devices), str(batch_size), kind]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=root, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads([line for line in result.stdout.splitlines() if line.startswith("{")][-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ftd", "stage 1", "stage 2", "adversary"])
def test_one_process_and_two_make_the_same_steps(tmp_path, kind):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()[100:228, 100:228]).save(photos / f"{name}.png")
    alone, together = train(photos, 1, 4, kind), train(photos, 2, 2, kind)
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    for name, (total, norm) in alone["weights"].items():
        assert together["weights"][name] == pytest.approx([total, norm], rel=1e-4, abs=1e-5), name
