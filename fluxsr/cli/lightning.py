"""``fluxsr fit | validate | test | predict``: LightningCLI over :class:`OneStepSR` and :class:`SRDataModule`."""

from __future__ import annotations

import sys
import time
from inspect import signature
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from fluxsr.cli.pairs import make_pairs
from fluxsr.cli.run import one_line_errors
from fluxsr.data import PairStore, SRDataModule
from fluxsr.data.pair_store import MANIFEST
from fluxsr.training import OneStepSR


class FluxSRCLI(LightningCLI):
    """LightningCLI, and a pair store that is made where the configuration says how and none is there."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return Lightning's parser, of one command or of all; its errors are one line."""
        parser = super().init_parser(**kwargs)
        one_line_errors(parser)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``make_pairs``: options of ``fluxsr pairs`` for a missing ``data.pairs``."""
        parser.add_argument(
            "--make_pairs",
            type=dict[str, Any] | None,
            default=None,
            help="options of `fluxsr pairs`: data.pairs is made with them where it does not exist yet",
        )

    def before_instantiate_classes(self) -> None:
        """Make the pairs before the data module looks for them."""
        config = self.config[self.subcommand]
        # Checkpoints are never unpickled: they hold tensors and plain values only.
        if config.get("ckpt_path") is not None:
            config.weights_only = True
        if config.data.pairs is None:
            return
        path = Path(config.data.pairs).expanduser()
        config.data.pairs = str(path)
        if self.subcommand != "fit" or config.make_pairs is None:
            return
        if rank_zero_only.rank == 0:
            complete_pairs(path, config.make_pairs)
        else:  # one writer; the other processes of torchrun or SLURM wait for it
            while unfinished(path):
                time.sleep(2)


def complete_pairs(path: Path, options: dict[str, Any]) -> None:
    """Make what is missing of the pair store at ``path``; one that was made otherwise is refused.

    A finished store is looked at too: a store in a cache folder may be another teacher's, of an older release.
    """
    unknown = sorted(set(options) - set(signature(make_pairs).parameters))
    if unknown:
        raise ValueError(f"make_pairs has no option {unknown[0]!r}; `fluxsr pairs --help` lists them")
    was_there = (path / MANIFEST).is_file()
    try:
        make_pairs(**{**options, "output": str(path)})
    except ValueError as error:
        hint = ". To train on the pairs as they are: --make_pairs null" if was_there else ""
        raise ValueError(f"{error}{hint}") from error


def unfinished(path: Path) -> bool:
    """Say whether the pair store at ``path`` is missing or has missing shards."""
    return not (path / MANIFEST).is_file() or bool(PairStore.open(path).missing_shards())


def main(arguments: list[str]) -> FluxSRCLI:
    """Run LightningCLI with the given arguments, the subcommand first."""
    # LightningCLI reads sys.argv itself, and warns when it is also given arguments.
    sys.argv = ["fluxsr", *arguments]
    try:
        return FluxSRCLI(
            OneStepSR,
            SRDataModule,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,  # OneStepSR takes its optimiser as an argument
            trainer_defaults={"plugins": [{"class_path": "fluxsr.training.AtomicCheckpointIO"}]},
            # "omegaconf+" resolves last: plain "omegaconf" silently ignores an override of an interpolated source.
            parser_kwargs={"parser_mode": "omegaconf+"},
        )
    except MisconfigurationException as error:  # for example an accelerator that is not there
        raise ValueError(str(error)) from error
