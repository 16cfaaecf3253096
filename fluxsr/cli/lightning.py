"""``fluxsr fit | validate | test | predict``: LightningCLI over :class:`OneStepSR` and :class:`SRDataModule`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from fluxsr.cli.pairs import make_pairs
from fluxsr.data import PairStore, SRDataModule
from fluxsr.data.pair_store import MANIFEST
from fluxsr.training import OneStepSR


class FluxSRCLI(LightningCLI):
    """LightningCLI, and a pair store that is made where the configuration says how and none is there."""

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
            if unfinished(path):
                make_pairs(output=str(path), **config.make_pairs)
        else:  # one writer; the other processes of torchrun or SLURM wait for it
            while unfinished(path):
                time.sleep(2)


def unfinished(path: Path) -> bool:
    """Say whether the pair store at ``path`` is missing or has missing shards."""
    return not (path / MANIFEST).is_file() or bool(PairStore.open(path).missing_shards())


def main(arguments: list[str]) -> None:
    """Run LightningCLI with the given arguments, the subcommand first."""
    # LightningCLI reads sys.argv itself, and warns when it is also given arguments.
    sys.argv = ["fluxsr", *arguments]
    FluxSRCLI(
        OneStepSR,
        SRDataModule,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,  # OneStepSR takes its optimiser as an argument
        # "omegaconf+" resolves last: plain "omegaconf" silently ignores an override of an interpolated source.
        parser_kwargs={"parser_mode": "omegaconf+"},
    )
