"""``fluxsr fit | validate | test | predict``: LightningCLI over :class:`OneStepSR` and :class:`SRDataModule`."""

from __future__ import annotations

import sys

from lightning.pytorch.cli import LightningCLI

from fluxsr.data import SRDataModule
from fluxsr.training import OneStepSR


class FluxSRCLI(LightningCLI):
    """LightningCLI with omegaconf interpolation that honours command-line overrides."""


def main(arguments: list[str]) -> None:
    """Run LightningCLI with the given arguments, the subcommand first."""
    # LightningCLI reads sys.argv itself, and warns when it is also given arguments.
    sys.argv = ["fluxsr", *arguments]
    FluxSRCLI(
        OneStepSR,
        SRDataModule,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        # "omegaconf+" resolves last: plain "omegaconf" silently ignores an override of an interpolated source.
        parser_kwargs={"parser_mode": "omegaconf+"},
        auto_configure_optimizers=False,  # OneStepSR takes its optimiser as an argument
    )
