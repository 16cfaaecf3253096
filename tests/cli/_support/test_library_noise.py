from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fluxsr.cli._support.library_noise import quiet
from tests.cli.test_fit import CONFIGS, FEW_PAIRS


class Listener(logging.Handler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


def test_what_is_not_listed_is_shown():
    with quiet(), pytest.warns(UserWarning, match="of another kind"):
        warnings.warn("of another kind", stacklevel=1)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(listener := Listener())
    with quiet():
        logger.critical("TPU available: False")
        logger.critical("GPU available: False")
    logger.critical("TPU available: True")
    logger.removeHandler(listener)
    assert listener.heard == ["GPU available: False", "TPU available: True"]


def test_a_training_starts_without_noise(tmp_path, photos):
    command = [sys.executable, "-m", "fluxsr", "fit", "--config", str(CONFIGS / "fluxsr_nano.yaml"), FEW_PAIRS]
    command += [f"--data.pairs={tmp_path / 'pairs'}", f"--data.photos={photos}", "--trainer.max_steps=1"]
    command += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    root = Path(__file__).parents[3]
    command += [f"--trainer.default_root_dir={tmp_path / 'out'}"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    lines = [line for line in result.stderr.splitlines() if "arning" in line or "lightning/" in line or "Tip" in line]
    assert not lines
    assert "eval mode" not in result.stderr
