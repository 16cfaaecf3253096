"""Runs ``fluxsr fit``, ``validate``, ``test`` and ``predict``, which share one parser."""

from __future__ import annotations

import re
import shlex
import sys

from lightning.fabric.utilities.exceptions import MisconfigurationException

from fluxsr.cli._support.fit_cli import TRAINER_DEFAULTS, FluxSRCLI, SavedConfig, without_noise
from fluxsr.cli._support.interruption import SaveOnInterrupt, Terminated
from fluxsr.processes import leave_group


def main(arguments: list[str]) -> FluxSRCLI:
    """Run LightningCLI with the given arguments, the subcommand first."""
    # Lightning starts the other processes of several devices from sys.argv, whoever called this.
    sys.argv = [sys.argv[0], *arguments]
    arguments = ["--help" if argument == "--help_all" else argument for argument in arguments]
    try:
        with without_noise():
            return FluxSRCLI(
                arguments,
                seed_everything_default=0,
                save_config_callback=SavedConfig,
                save_config_kwargs={"overwrite": True},
                auto_configure_optimizers=False,  # OneStepSR takes its optimizer as an argument
                trainer_defaults={
                    **TRAINER_DEFAULTS,
                    "callbacks": [SaveOnInterrupt(shlex.join(["fluxsr", *without_checkpoint(arguments)]))],
                },
                # "omegaconf+" resolves last: plain "omegaconf" silently ignores an override of an interpolated source.
                parser_kwargs={"parser_mode": "omegaconf+"},
            )
    except MisconfigurationException as error:  # for example an accelerator that is not there
        raise ValueError(str(error)) from error
    except SystemExit as stopped:  # Lightning catches Ctrl-C, and exits with 1
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise SystemExit(143 if isinstance(stopped.__context__, Terminated) else 130) from None
        raise
    finally:
        leave_group()


def without_checkpoint(arguments: list[str]) -> list[str]:
    """Return the arguments without ``--ckpt_path`` and its value."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [one for before, one in pairs if before != "--ckpt_path" and not re.match("--ckpt_path(=|$)", one)]
