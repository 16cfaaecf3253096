"""Saves the configuration beside a training's logs, wherever these are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback


class SavedConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the logger's folder, or below ``default_root_dir`` where the logger has none.

    A logger that keeps nothing on this machine (MLflow's, with a server or a database) has no folder, for which Lightning's own
    callback has an assertion.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it, once."""
        if trainer.log_dir is not None:
            super().setup(trainer, pl_module, stage)
        elif trainer.is_global_zero and not self.already_saved:
            folder: Any = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)
            self.already_saved = True
