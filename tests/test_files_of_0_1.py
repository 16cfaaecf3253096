"""What version 0.1.0 wrote loads today and computes what it computed then."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxsr.data import TeacherPairs
from fluxsr.flows import ConsistencySRFlow, FlowTrajectoryDistillation
from fluxsr.models import FluxBackbone, load_flux
from fluxsr.models.sources import ModelSource
from fluxsr.training import AtomicCheckpointIO
from fluxsr.training.callbacks import EMA
from tests.models.conftest import tiny_transformer
from tests.training.conftest import loader, tiny_module, tiny_trainer

FOLDER = Path(__file__).parent / "files_of_0_1"
SMALL = {"in_channels": 48, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def expected():
    return load_file(FOLDER / "expected.safetensors")


def backbone(*roles: str) -> FluxBackbone:
    made = FluxBackbone(tiny_transformer(**SMALL))
    for role in roles:
        made.add_lora(role, rank=1, trainable=role == "student")
    return made


def test_an_exported_adapter(expected):
    made = FluxBackbone(tiny_transformer(**SMALL))
    made.load_lora(FOLDER / "ftd.safetensors", "student", trainable=False)
    with torch.no_grad():
        velocity = made.as_role("student")(expected["x"], torch.tensor([0.31]))
    torch.testing.assert_close(velocity, expected["adapter"], rtol=1e-5, atol=1e-6)


def test_a_whole_model_in_one_file(expected):
    path = str(FOLDER / "whole.safetensors")
    with torch.no_grad():
        velocity = load_flux(path, trainable="none")(expected["x"], torch.tensor([0.31]))
    torch.testing.assert_close(velocity, expected["whole"], rtol=1e-5, atol=1e-6)
    assert ModelSource(path).record.start_time == 0.31


@pytest.mark.parametrize("name", ["ftd", "stage_two"])
def test_a_checkpoint_goes_on(expected, tmp_path, name):
    objective = FlowTrajectoryDistillation() if name == "ftd" else ConsistencySRFlow(target_decay=0.9)
    roles = ["student"] if name == "ftd" else ["student", "teacher"]
    module = tiny_module(lora=None, losses={}, backbone=backbone(*roles), objective=objective)
    trainer = tiny_trainer(tmp_path, max_steps=3, callbacks=[EMA()], plugins=[AtomicCheckpointIO()])
    seen = {}
    module.on_train_start = lambda: seen.update(image=restored(module, expected["image"]))
    trainer.fit(module, loader(2), ckpt_path=str(FOLDER / f"{name}.ckpt"), weights_only=True)
    assert trainer.global_step == 3
    torch.testing.assert_close(seen["image"], expected[name], rtol=1e-5, atol=1e-5)
    if name == "ftd":
        assert module.objective.lr_time == 0.31


def restored(module, image):
    module.eval()
    with torch.no_grad():
        made = module(image)
    module.train()
    return made


def test_teacher_pairs():
    pairs = TeacherPairs(FOLDER / "pairs", scale=4)
    assert len(pairs) == 3
    sample = pairs[0]
    assert sample.hr_image.shape == (3, 16, 16) and sample.hr_latents.shape == sample.noise.shape == (48, 4, 4)
    assert sample.hr_image.std() > 0
