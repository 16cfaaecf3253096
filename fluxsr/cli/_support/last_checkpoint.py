"""Finds the checkpoint that ``--ckpt_path last`` means: the newest that Lightning wrote for this run, and no other's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

DEFAULT_NAME = "lightning_logs"
# The argument that names the folder below a logger's own, by the end of its class' name; below that is one folder a run.
_FOLDER_ARGUMENTS = {"WandbLogger": "project", "MLFlowLogger": "experiment_name"}


def last_checkpoint(trainer: Mapping[str, Any]) -> Path | None:
    """Return the newest of the run's last checkpoints; ``None`` if there is none.

    It looks for ``last.ckpt`` (``last-v1.ckpt``, ...) in three places: the folder that a ``ModelCheckpoint`` is given,
    ``checkpoints`` of the root folder, and ``checkpoints`` of each version below a logger's own folder. It also looks for
    ``hpc_ckpt_*.ckpt`` in the root, which Lightning writes when SLURM requeues a job.

    Args:
        trainer: The trainer's configuration, plain values.
    """
    return max(_candidates(trainer), key=lambda path: path.stat().st_mtime, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer steps that a checkpoint's training had made.

    Raises:
        ValueError: If it can't be read.
    """
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:
        raise ValueError(
            f"{checkpoint} can't be read as a checkpoint ({type(error).__name__}): name another one"
        ) from error


def places(trainer: Mapping[str, Any]) -> list[Path]:
    """Return the folders that are looked at, whether they exist or not, without the versions below a logger's."""
    root, folders = _run_folders(trainer)
    return [*folders, root, *_logger_folders(trainer, root)]


def listed(value: Any) -> list[Any]:
    """Return the entries of a configuration that may be one or several, such as the trainer's callbacks."""
    return [one for one in (value if isinstance(value, list) else [value]) if hasattr(one, "get")]


def _run_folders(trainer: Mapping[str, Any]) -> tuple[Path, list[Path]]:
    """Return the root folder, and the folders that hold this run's checkpoints alone."""
    root = Path(trainer.get("default_root_dir") or ".").expanduser()
    kept = [_argument(one, "dirpath") for one in listed(trainer.get("callbacks"))]
    return root, [*(Path(one).expanduser() for one in kept if one), root / "checkpoints"]


def _candidates(trainer: Mapping[str, Any]) -> Iterator[Path]:
    root, folders = _run_folders(trainer)
    for logs in _logger_folders(trainer, root):
        folders += logs.glob("*/checkpoints")
    for folder in dict.fromkeys(folders):
        yield from (
            path for path in folder.glob("last*.ckpt") if path.name == "last.ckpt" or path.name.startswith("last-v")
        )
    yield from root.glob("hpc_ckpt_*.ckpt")


def _logger_folders(trainer: Mapping[str, Any], root: Path) -> list[Path]:
    """Return the folders that hold one folder for each run."""
    folders = [root / DEFAULT_NAME]
    for logger in listed(trainer.get("logger")):
        name = str(logger.get("class_path", "")).rpartition(".")[2]
        below = _argument(logger, _FOLDER_ARGUMENTS.get(name, "name"), DEFAULT_NAME)
        saved = Path(_argument(logger, "save_dir") or root).expanduser()
        folders += [saved / str(below or "")]
    return list(dict.fromkeys(folders))


def _argument(part: Mapping[str, Any], name: str, default: Any = None) -> Any:
    found = (part.get("init_args") or {}).get(name)
    return default if found is None else found
