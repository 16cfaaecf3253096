"""``fluxsr fit | validate | test | predict``: LightningCLI over :class:`OneStepSR`, or a module of the user's own."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from fluxsr.cli.announce import announce
from fluxsr.cli.classes import arguments_of, cli_classes, derives_from, find_own_modules
from fluxsr.cli.configs import take_configs
from fluxsr.cli.explain import explain
from fluxsr.cli.fit_help import WHAT
from fluxsr.cli.interrupt import SaveOnInterrupt, last_checkpoint
from fluxsr.cli.pairs import tell
from fluxsr.cli.quiet import quiet
from fluxsr.cli.run import NO_FILES, one_line_errors
from fluxsr.data import PairStore, SRDataModule
from fluxsr.data.pair_store import MANIFEST
from fluxsr.progress import progress_of
from fluxsr.training import OneStepSR
from fluxsr.training.pair_maker import make_pairs

_TRAINER_DEFAULTS = {"plugins": [{"class_path": "fluxsr.training.AtomicCheckpointIO"}]}


class FluxSRCLI(LightningCLI):
    """LightningCLI, and a pair store that is made where the configuration says how and none is there."""

    further: Collection[str] = ()  # options that a command takes for itself before these are parsed
    command = ""  # which that is, for the errors
    configuration = NO_FILES

    def __init__(self, arguments: list[str], **options: Any) -> None:
        """Read the files after ``--config``, which say what classes there are, then do as LightningCLI does.

        Args:
            arguments: The subcommand, then its options.
            options: Further arguments of LightningCLI.
        """
        find_own_modules()
        self._command, self._options = arguments[0], arguments[1:]
        self.configuration, self._options = take_configs(self._options)
        super().__init__(args=arguments, **cli_classes(self.configuration), **options)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return Lightning's parser, of one command or of all; its errors are one line, its options are written out."""
        # prog: what stands in sys.argv[0] may be "-c" or "__main__.py".
        parser = super().init_parser(**{"prog": "fluxsr", **kwargs}, allow_abbrev=False)
        one_line_errors(parser, lambda: self.configuration, self.further, self.command)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Merge the files by key, which jsonargparse doesn't do inside ``model.losses``, and parse them with the options.

        Raises:
            ValueError: if a file is missing, no YAML, or has a key that there isn't.
        """
        name, rest = self._command, self._options
        if not self.configuration.files and not any(one.startswith("--model.") or "help" in one for one in rest):
            raise ValueError(
                f"a configuration is needed: fluxsr {name} --config FILE (examples/configs of the source has some; "
                f"`fluxsr {name} --help` lists them)"
            )
        self.configuration.check_keys({action.dest for action in self._parser(name)._actions})
        # Before the options, which win over every file wherever they stand.
        given = [f"--config={self.configuration.text()}"] if self.configuration.files else []
        self.config = parser.parse_args([name, *given, *rest])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``make_pairs``: options of ``fluxsr pairs`` for a missing ``data.pairs``."""
        parser.add_argument(
            "--make_pairs",
            type=dict[str, Any] | None,
            default=None,
            help="options of `fluxsr pairs`: data.pairs is made with them where it does not exist yet",
        )

    def before_instantiate_classes(self) -> None:
        """Find the last checkpoint, and make the pairs before the data module looks for them."""
        config = self.config[self.subcommand]
        if config.get("ckpt_path") == "last":
            config.ckpt_path = self._last_checkpoint()
        # Checkpoints are never unpickled: they hold tensors and plain values only.
        if config.get("ckpt_path") is not None:
            config.weights_only = True
        data = arguments_of(config.data)
        # Data of another kind have no pairs of ours.
        if not derives_from(SRDataModule, config.data) or data.get("pairs") is None:
            return
        path = Path(data.pairs).expanduser()
        data.pairs = str(path)
        if self.subcommand != "fit" or config.make_pairs is None:
            return
        # A run that goes on has its pairs: the teacher, which may be 12 B weights, isn't loaded to look at them again.
        if config.ckpt_path is not None and not unfinished(path):
            return
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # Lightning hangs the rank on the function
            complete_pairs(path, config.make_pairs)
        else:  # one writer; the other processes of torchrun or SLURM wait for it
            while unfinished(path):
                time.sleep(2)

    def instantiate_classes(self) -> None:
        """Instantiate; what a class of the user's own refuses is said without all the types that were tried."""
        with self.plain_errors():
            super().instantiate_classes()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Shorten what jsonargparse wraps around the error of a class; the others come as they are."""
        try:
            yield
        except ValueError as error:
            if str(error).startswith("Does not validate against"):
                raise ValueError(explain(str(error), self.configuration, self._options)) from error
            raise

    def before_fit(self) -> None:
        """Say what is minimised, once."""
        if self.trainer.is_global_zero and isinstance(self.model, OneStepSR):
            announce(self.model)

    def _last_checkpoint(self) -> str | None:
        """Return the checkpoint that ``--ckpt_path last`` means; ``None``: a training begins.

        Raises:
            ValueError: if there is none, in a command that needs one.
        """
        trainer = self.config[self.subcommand].trainer.as_dict()
        callbacks = trainer.get("callbacks") or []
        kept = [
            (one.get("init_args") or {}).get("dirpath")
            for one in (callbacks if isinstance(callbacks, list) else [callbacks])
        ]
        folders = [*filter(None, kept), trainer.get("default_root_dir") or "lightning_logs"]
        found = next(filter(None, map(last_checkpoint, folders)), None)
        if found is None and self.subcommand != "fit":
            raise ValueError(f"there is no last.ckpt below {' or '.join(folders)}: give --ckpt_path FILE")
        if found is None:
            rank_zero_info(f"There is no last.ckpt below {' or '.join(folders)}: the training begins.")
        return None if found is None else str(found)


def complete_pairs(path: Path, options: dict[str, Any]) -> None:
    """Make what is missing of the pair store at ``path``; one that was made otherwise is refused.

    A finished store is looked at too: a store in a cache folder may be another teacher's, of an older release.
    """
    unknown = sorted(set(options) - set(signature(make_pairs).parameters) | {"progress"} & set(options))
    if unknown:
        raise ValueError(f"make_pairs has no option {unknown[0]!r}; `fluxsr pairs --help` lists them")
    was_there = (path / MANIFEST).is_file()
    try:
        with progress_of("teacher pairs") as report:
            tell(make_pairs(**{**options, "output": str(path), "progress": report}))
    except ValueError as error:
        hint = ". To train on the pairs as they are: --make_pairs null" if was_there else ""
        raise ValueError(f"{error}{hint}") from error


def unfinished(path: Path) -> bool:
    """Say whether the pair store at ``path`` is missing or has missing shards."""
    return not (path / MANIFEST).is_file() or bool(PairStore.open(path).missing_shards())


def main(arguments: list[str]) -> FluxSRCLI:
    """Run LightningCLI with the given arguments, the subcommand first."""
    # Lightning starts the other processes of several devices from sys.argv, whoever called this.
    sys.argv = [sys.argv[0], *arguments]
    arguments = ["--help" if argument == "--help_all" else argument for argument in arguments]
    usage = "fluxsr {} --config FILE [--config FILE ...] [--KEY VALUE ...]"
    pages = {name: {"usage": usage.format(name), "description": f"{text} All keys:"} for name, text in WHAT.items()}
    try:
        with quiet():
            return FluxSRCLI(
                arguments,
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},
                auto_configure_optimizers=False,  # OneStepSR takes its optimiser as an argument
                trainer_defaults={
                    **_TRAINER_DEFAULTS,
                    "callbacks": [SaveOnInterrupt(shlex.join(["fluxsr", *without_checkpoint(arguments)]))],
                },
                # "omegaconf+" resolves last: plain "omegaconf" silently ignores an override of an interpolated source.
                parser_kwargs={"parser_mode": "omegaconf+", **pages},
            )
    except MisconfigurationException as error:  # for example an accelerator that is not there
        raise ValueError(str(error)) from error
    except SystemExit as stopped:  # Lightning catches Ctrl-C, and exits with 1
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise SystemExit(130) from None
        raise


def without_checkpoint(arguments: list[str]) -> list[str]:
    """Return the arguments without ``--ckpt_path`` and its value."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [one for before, one in pairs if before != "--ckpt_path" and not re.match("--ckpt_path(=|$)", one)]
