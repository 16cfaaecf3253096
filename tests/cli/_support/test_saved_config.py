"""A logger that has no folder on this machine is no reason to fail."""

from __future__ import annotations

from types import SimpleNamespace

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from fluxsr.cli._support.saved_config import SavedConfig


def test_a_logger_without_a_folder_leaves_the_configuration_in_the_root(tmp_path):
    parser = LightningArgumentParser()
    parser.add_argument("--steps", type=int, default=3)
    trainer = SimpleNamespace(log_dir=None, is_global_zero=True, default_root_dir=str(tmp_path / "root"))
    SavedConfig(parser, parser.parse_args(["--steps=7"])).setup(trainer, None, "fit")
    assert yaml.safe_load((tmp_path / "root" / "config.yaml").read_text()) == {"steps": 7}


def test_other_processes_write_nothing(tmp_path):
    parser = LightningArgumentParser()
    trainer = SimpleNamespace(log_dir=None, is_global_zero=False, default_root_dir=str(tmp_path))
    SavedConfig(parser, parser.parse_args([])).setup(trainer, None, "fit")
    assert not list(tmp_path.iterdir())
