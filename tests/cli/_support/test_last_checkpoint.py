"""What ``--ckpt_path last`` finds: what Lightning wrote for this run, wherever it does, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fluxsr.cli._support.last_checkpoint import last_checkpoint, step_of


def put(root: Path, name: str, age: int = 0) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (1000 - age, 1000 - age))
    return path


def logger(kind: str, **arguments) -> dict:
    return {"logger": {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": arguments}}


@pytest.mark.parametrize(
    ("where", "trainer"),
    [
        ("checkpoints/last.ckpt", {}),
        ("lightning_logs/version_3/checkpoints/last.ckpt", {}),
        ("lightning_logs/version_3/checkpoints/last-v2.ckpt", {}),
        ("hpc_ckpt_2.ckpt", {}),
        ("kept/last.ckpt", {"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "{root}/kept"}}]}),
        ("kept/last.ckpt", {"callbacks": {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "{root}/kept"}}}),
        ("tb/mine/version_0/checkpoints/last.ckpt", logger("TensorBoardLogger", save_dir="{root}/tb", name="mine")),
        ("tb/lightning_logs/v/checkpoints/last.ckpt", logger("CSVLogger", save_dir="{root}/tb")),
        (
            "w/project/a1b2/checkpoints/last.ckpt",
            logger("WandbLogger", save_dir="{root}/w", project="project", name="x"),
        ),
    ],
)
def test_it_is_found_where_lightning_writes_it(tmp_path, where, trainer):
    def settled(value):
        if isinstance(value, dict):
            return {key: settled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [settled(one) for one in value]
        return value.replace("{root}", str(tmp_path)) if isinstance(value, str) else value

    configuration = {"default_root_dir": str(tmp_path), **settled(trainer)}
    assert last_checkpoint(configuration) is None
    assert last_checkpoint({**configuration, "default_root_dir": str(tmp_path)}) is None
    path = put(tmp_path, where)
    assert last_checkpoint(configuration) == path


def test_the_newest_is_taken_a_requeued_jobs_too(tmp_path):
    trainer = {"default_root_dir": str(tmp_path)}
    for age, name in enumerate(["version_2", "version_10", "version_1"], 1):
        put(tmp_path, f"lightning_logs/{name}/checkpoints/last.ckpt", age)
    assert last_checkpoint(trainer).parts[-3] == "version_2"
    newest = put(tmp_path, "hpc_ckpt_1.ckpt")
    assert last_checkpoint(trainer) == newest


def test_another_runs_is_not(tmp_path):
    for name in (
        "b/checkpoints/last.ckpt",
        "b/lightning_logs/version_0/checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):
        put(tmp_path, name)
    assert last_checkpoint({"default_root_dir": str(tmp_path)}) is None


def test_the_step_is_read_without_unpickling(tmp_path):
    torch.save({"global_step": 7}, tmp_path / "last.ckpt")
    assert step_of(tmp_path / "last.ckpt") == 7
    (tmp_path / "broken.ckpt").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"broken\.ckpt"):
        step_of(tmp_path / "broken.ckpt")


def test_home_is_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = put(tmp_path, "runs/a/checkpoints/last.ckpt")
    assert last_checkpoint({"default_root_dir": "~/runs/a"}) == path
