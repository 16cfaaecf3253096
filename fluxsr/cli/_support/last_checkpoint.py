"""Finds the checkpoint that ``--ckpt_path last`` means: the newest that Lightning wrote for this run, and no other's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

DEFAULT_NAME = "lightning_logs"
# The argument that names the folder below a logger's own, by the end of its class' name; below that is one folder a run.
_FOLDER_ARGUMENTS = {"WandbLogger": "project", "MLFlowLogger": "experiment_name"}


def last_checkpoint(trainer: Mapping[str, Any]) -> Path | None:
    """Return the newest last checkpoint of a run with this configuration of the trainer."""
    found = (path for folder, pattern in places(trainer) for path in folder.glob(pattern))
    last = (path for path in found if re.fullmatch(r"last(-v\d+)?|hpc_ckpt_\d+", path.stem))
    return max(last, key=lambda path: path.stat().st_mtime, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer steps that a checkpoint's training had made."""
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:
        raise ValueError(
            f"{checkpoint} can't be read as a checkpoint ({type(error).__name__}): name another one"
        ) from error


def places(trainer: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return the folders that are looked at, each with a pattern.

    These are what a ``ModelCheckpoint`` is given, ``checkpoints`` of the root and of each version below a logger's folder,
    and the root itself, where Lightning writes when SLURM requeues a job.
    """
    root = Path(trainer.get("default_root_dir") or ".").expanduser()
    kept = [_argument(one, "dirpath") for one in listed(trainer.get("callbacks"))]
    logs = [root / DEFAULT_NAME]
    for logger in listed(trainer.get("logger")):
        name = str(logger.get("class_path", "")).rpartition(".")[2]
        below = _argument(logger, _FOLDER_ARGUMENTS.get(name, "name"), DEFAULT_NAME)
        logs.append(Path(_argument(logger, "save_dir") or root).expanduser() / str(below or ""))
    return [
        *((Path(one).expanduser(), "last*.ckpt") for one in kept if one),
        (root / "checkpoints", "last*.ckpt"),
        (root, "hpc_ckpt_*.ckpt"),
        *((folder, "*/checkpoints/last*.ckpt") for folder in dict.fromkeys(logs)),
    ]


def listed(value: Any) -> list[Any]:
    """Return the entries of a configuration that may be one or several, such as the trainer's callbacks."""
    return [one for one in (value if isinstance(value, list) else [value]) if hasattr(one, "get")]


def _argument(part: Mapping[str, Any], name: str, default: Any = None) -> Any:
    found = (part.get("init_args") or {}).get(name)
    return default if found is None else found
