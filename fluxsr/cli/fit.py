"""Runs ``fluxsr fit``, ``validate``, ``test`` and ``predict``, which share one parser."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException

from fluxsr.cli._support.fit_cli import TRAINER_DEFAULTS, FluxSRCLI, SavedConfig
from fluxsr.cli._support.interruption import SaveOnInterrupt, Terminated
from fluxsr.processes import leave_group

# Warnings and lines of other libraries that do not matter in training, by their words; everything else is shown.
_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of a deprecated function of torch
    r"Found \d+ module\(s\) in eval mode",  # the autoencoder and perceptual nets are frozen by design
    r"Total length of `list` across ranks is zero",  # no validation photos were given
    r"The dirpath has changed from",  # each run, a resumed one too, has a folder of its own
    r"Mismatch dtype between input and weight",  # float32 norm weights under bf16 autocast: torch takes another kernel
)
# Beginnings of lines that Lightning logs.
_LINES = ("TPU available:", "💡 Tip:", "\nDetected KeyboardInterrupt")  # of the last, we say more ourselves


def main(arguments: list[str]) -> FluxSRCLI:
    """Run LightningCLI with the given arguments, the subcommand first."""
    # Lightning starts the other processes of several devices from sys.argv, whoever called this.
    sys.argv = [sys.argv[0], *arguments]
    arguments = ["--help" if argument == "--help_all" else argument for argument in arguments]
    try:
        with quiet():
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


def _matters(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)


@contextmanager
def quiet() -> Iterator[None]:
    """Filter other libraries' messages during the body."""
    loggers = [logging.getLogger(f"lightning.{part}.utilities.rank_zero") for part in ("pytorch", "fabric")]
    with warnings.catch_warnings():
        for words in _WARNINGS:
            warnings.filterwarnings("ignore", message=words)
        for logger in loggers:
            logger.addFilter(_matters)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_matters)
