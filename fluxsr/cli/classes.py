"""Which module and which data a configuration trains: ours, or classes of the user's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from lightning import LightningDataModule, LightningModule

from fluxsr.cli.configs import Configuration, class_named
from fluxsr.data import SRDataModule
from fluxsr.training import OneStepSR


def find_own_modules() -> None:
    """Let Python find modules in the folder that a command runs in, after all others, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def cli_classes(configuration: Configuration) -> dict[str, Any]:
    """Return LightningCLI's arguments about the classes.

    Where ``model`` or ``data`` has a ``class_path``, that class is trained, whatever it derives from; else
    :class:`OneStepSR` on :class:`SRDataModule`.
    """
    own_model, own_data = (
        isinstance(section := configuration.merged.get(name), Mapping) and bool(section.get("class_path"))
        for name in ("model", "data")
    )
    return {
        "model_class": LightningModule if own_model else OneStepSR,
        "subclass_mode_model": own_model,
        "datamodule_class": LightningDataModule if own_data else SRDataModule,
        "subclass_mode_data": own_data,
    }


def arguments_for(ours: type, section: Any) -> Any:
    """Return the constructor's arguments in a parsed ``model`` or ``data``.

    Raises:
        ValueError: if it names a class that does not derive from ``ours``.
    """
    if "class_path" not in section:
        return section
    named = class_named(section["class_path"])
    if not (isinstance(named, type) and issubclass(named, ours)):
        raise ValueError(f"this is for a {ours.__name__} alone, and {section['class_path']} is none")
    return section.get("init_args") or {}
