"""``fluxsr fit | validate | test | predict``: LightningCLI over :class:`OneStepSR` and :class:`SRDataModule`."""

from __future__ import annotations

import sys
import time
from argparse import RawDescriptionHelpFormatter
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from fluxsr.cli.pairs import make_pairs
from fluxsr.cli.run import one_line_errors
from fluxsr.data import PairStore, SRDataModule
from fluxsr.data.pair_store import MANIFEST
from fluxsr.training import OneStepSR

_PURPOSE = {
    "fit": "Train as a configuration says.",
    "validate": "Measure on the validation images, as a configuration says.",
    "test": "Measure on the test images, as a configuration says.",
    "predict": "Upscale the images of data.predict with a configuration and its checkpoint.",
}

_EXAMPLES = """\
Every key of the configuration is an option too, one inside a class by its path in the YAML:

  fluxsr {name} --config examples/configs/fluxsr_nano.yaml --data.photos PHOTOS
  fluxsr {name} --config FILE --trainer.max_steps 2000 --model.losses.tv_lpips.init_args.weight=2
  fluxsr {name} --config FILE --config examples/configs/memory/48gb.yaml    # the later file wins
  fluxsr {name} --config FILE --ckpt_path last                              # go on, or start
  fluxsr {name} --config FILE --print_config                                # all of it, with defaults

What a class takes: --model.objective.help fluxsr.flows.RectifiedSRFlow, and so for every key that holds a class.
"""


class _HelpFormatter(DefaultHelpFormatter):
    """Keeps the lines of the examples."""

    _fill_text = RawDescriptionHelpFormatter._fill_text


def _help(name: str) -> dict[str, Any]:
    """Return the texts of a subcommand's help; Lightning's usage lists a hundred options before anything is said."""
    return {
        "usage": f"fluxsr {name} --config FILE [--config FILE ...] [--KEY VALUE ...]",
        # Before the options: after a hundred of them nobody would find the examples.
        "description": f"{_PURPOSE[name]} {_EXAMPLES.format(name=name)}",
    }


class FluxSRCLI(LightningCLI):
    """LightningCLI, and a pair store that is made where the configuration says how and none is there."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return Lightning's parser, of one command or of all; its errors are one line."""
        parser = super().init_parser(**kwargs)
        one_line_errors(parser)
        parser.formatter_class = _HelpFormatter
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
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # Lightning hangs the rank on the function
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
            parser_kwargs={"parser_mode": "omegaconf+", **{name: _help(name) for name in _PURPOSE}},
        )
    except MisconfigurationException as error:  # for example an accelerator that is not there
        raise ValueError(str(error)) from error
