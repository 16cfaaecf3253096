"""What version 0.2 wrote loads today and computes what it computed then; what it didn't say has its documented default."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxsr.data import TeacherPairs
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.inference import Upscaler
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import FluxBackbone, PixelAutoencoder, StudentRecord, load_flux
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import read_record
from fluxsr.training import AtomicCheckpointIO, make_pairs
from fluxsr.training.callbacks import EMA
from tests.models.conftest import tiny_transformer
from tests.training.conftest import loader, tiny_module, tiny_trainer

FOLDER = Path(__file__).parent / "files_of_0_2"
NET = {
    "in_channels": 192,
    "num_layers": 0,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 1,
    "joint_attention_dim": 4,
    "pooled_projection_dim": 4,
    "axes_dims_rope": [2, 2, 4],
}
IMAGE = torch.linspace(0, 1, 3 * 16 * 16).reshape(3, 16, 16)
PLAIN = {"device": "cpu", "color_fix": "none", "grid_fix": False}


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


def close(result, wanted):
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)


def backbone() -> FluxBackbone:
    made = FluxBackbone(tiny_transformer(guidance_embeds=True, **NET), guidance=3.5)
    made.base = "black-forest-labs/FLUX.1-dev"
    return made


def test_an_adapter(expected, caplog):
    made = backbone()
    made.load_lora(FOLDER / "adapter.safetensors")
    with torch.no_grad():
        velocity = made(torch.linspace(-1, 1, 48 * 4 * 4).reshape(1, 48, 4, 4), torch.tensor([0.31]))
    close(velocity, expected["adapter"])
    assert not caplog.records
    record = read_record(FOLDER / "adapter.safetensors")
    assert (record.base, record.start_time, record.window, record.steps) == (made.base, 0.31, 16, 2)
    assert record.guidance is record.scale is None and not record.from_noise


def test_a_checkpoint_goes_on(expected, tmp_path):
    made = backbone()
    made.add_lora(rank=1)
    module = tiny_module(
        lora=None,
        losses={},
        backbone=made,
        objective=FlowTrajectoryDistillation(0.31),
        autoencoder=PixelAutoencoder(4),
        tile=16,
    )
    seen = {}

    def restored():
        module.eval()
        with torch.no_grad():
            seen["image"] = module(IMAGE[None])
        module.train()

    module.on_train_start = restored
    trainer = tiny_trainer(tmp_path, max_steps=3, callbacks=[EMA()], plugins=[AtomicCheckpointIO()])
    trainer.fit(module, loader(2), ckpt_path=str(FOLDER / "training.ckpt"), weights_only=True)
    assert trainer.global_step == 3
    close(seen["image"], expected["checkpoint"])


def test_single_files(expected):
    close(Upscaler.from_pretrained(FOLDER / "student.safetensors", **PLAIN)(IMAGE, 2), expected["student"])
    close(Upscaler.from_pretrained(FOLDER / "folded.safetensors", **PLAIN)(IMAGE, 2), expected["pipeline"])
    record = ModelSource(FOLDER / "student.safetensors").record
    assert record == StudentRecord(objective="FlowTrajectoryDistillation", start_time=0.31, window=16, steps=2)


def test_a_teacher_is_known_by_its_objective():
    assert ModelSource(FOLDER / "teacher.safetensors").record.from_noise
    with pytest.raises(ValueError, match="flow teacher"):
        Upscaler.from_pretrained(FOLDER / "teacher.safetensors", device="cpu")


def test_a_pipelines_folder(expected):
    """Its index names a module that has moved since, and has its numbers one by one."""
    close(Upscaler.from_pretrained(FOLDER / "pipeline", **PLAIN)(IMAGE, 2), expected["pipeline"])
    pipeline = FluxSRPipeline.from_pretrained(FOLDER / "pipeline")
    close(pipeline(IMAGE, scale=2, color_fix="none", grid_fix=False).images[0], expected["pipeline"])
    record = pipeline.record
    assert (record.start_time, record.window, record.trained) == (0.31, 16, "two steps")
    assert record.autoencoder == PixelAutoencoder(4).fingerprint()


def test_a_whole_student_is_trained_on():
    made = load_flux(str(FOLDER / "student.safetensors"), trainable="full")
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_pairs(tmp_path):
    pairs = TeacherPairs(FOLDER / "pairs", scale=4)
    assert len(pairs) == 3 and pairs[0].hr_latents.shape == (48, 4, 4)


def test_a_store_is_complete_and_grows(tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    options = {"steps": 2, "size": 16, "batch_size": 1, "shard_size": 2, "device": "cpu"}
    assert make_pairs("pairs", model="teacher.safetensors", num=3, **options).done_before == 3
    assert make_pairs("pairs", model="teacher.safetensors", num=5, **options).done_before == 3
    old, new = TeacherPairs(FOLDER / "pairs"), TeacherPairs("pairs")
    assert len(new) == 5
    for index in range(3):
        assert new[index].hr_latents.equal(old[index].hr_latents)
        assert new[index].hr_image.equal(old[index].hr_image)
