"""Finds the module and the data that a configuration trains: the library's, or classes of the user's own."""

from __future__ import annotations

import os
import sys
from typing import Any

from lightning import LightningDataModule, LightningModule

from fluxsr.cli._support.class_arguments import class_named
from fluxsr.cli._support.configurations import Configuration, names_class
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
    own_model, own_data = (names_class(configuration.merged.get(name)) for name in ("model", "data"))
    return {
        "model_class": LightningModule if own_model else OneStepSR,
        "subclass_mode_model": own_model,
        "datamodule_class": LightningDataModule if own_data else SRDataModule,
        "subclass_mode_data": own_data,
    }


def derives_from(ours: type, section: Any) -> bool:
    """Say whether a parsed ``model`` or ``data`` is of a class of ours, which it is unless it names another."""
    named = class_named(section["class_path"]) if "class_path" in section else ours
    return isinstance(named, type) and issubclass(named, ours)


def arguments_of(section: Any) -> Any:
    """Return the constructor's arguments in a parsed ``model`` or ``data``, which may name a class."""
    return (section.get("init_args") or {}) if "class_path" in section else section
