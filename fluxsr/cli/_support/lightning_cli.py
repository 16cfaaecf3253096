"""Adapts LightningCLI to :class:`OneStepSR` or a module of the user's own; errors name the key and the file."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from fluxsr.cli._support.announcement import announce
from fluxsr.cli._support.checking import check_arguments, check_class
from fluxsr.cli._support.configurations import dotted, names_class, take_configs
from fluxsr.cli._support.last_checkpoint import last_checkpoint, listed, places, step_of
from fluxsr.cli._support.made import tell_pairs
from fluxsr.cli._support.messages import UsageError, nearest, other_spelling, shortened
from fluxsr.cli._support.own_classes import arguments_of, cli_classes, derives_from, find_own_modules
from fluxsr.cli._support.signatures import read_signature
from fluxsr.cli._support.typed_options import plain, settle_flags, with_options
from fluxsr.data import PairStore, SRDataModule
from fluxsr.data.pair_store import MANIFEST
from fluxsr.progress import progress_of
from fluxsr.training import OneStepSR
from fluxsr.training.pair_maker import make_pairs

TRAINER_DEFAULTS = {"plugins": [{"class_path": "fluxsr.training.AtomicCheckpointIO"}]}


class FitParser(LightningArgumentParser):
    """Lightning's parser; where it finds a mistake that the checks before it didn't, that is one line too."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage, which has hundreds of options."""
        raise UsageError(shortened(message)) from ex


class FluxSRCLI(LightningCLI):
    """LightningCLI, and a pair store that is made where the configuration says how and none is there."""

    further: Collection[str] = ()  # options that a command takes for itself before these are parsed

    def __init__(self, arguments: list[str], **options: Any) -> None:
        """Read the files after ``--config``, which say what classes there are, then do as LightningCLI does.

        Args:
            arguments: The subcommand, then its options.
            options: Further arguments of LightningCLI.
        """
        find_own_modules()
        self._command, self._options = arguments[0], arguments[1:]
        self.configuration, self._options = take_configs(self._options)
        self._classes = cli_classes(self.configuration)
        super().__init__(args=arguments, parser_class=FitParser, **self._classes, **options)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return Lightning's parser, of one command or of all; its options are written out."""
        # prog: what stands in sys.argv[0] may be "-c" or "__main__.py".
        return super().init_parser(**{"prog": "fluxsr", **kwargs}, allow_abbrev=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Merge the files by key, which jsonargparse doesn't do inside ``model.losses``, and parse them with the options.

        Raises:
            UsageError: If a file is missing, no YAML, or there is a key or a value that can't be.
        """
        name, rest = self._command, self._options
        wants_help = any("help" in one for one in rest)
        if not self.configuration.files and not wants_help and not any(one.startswith("--model.") for one in rest):
            raise UsageError(
                f"a configuration is needed: fluxsr {name} --config FILE (`fluxsr configs` lists those that come with "
                "the package, by name)"
            )
        keys = {action.dest for action in self._parser(name)._actions}
        known = {*(f"--{key}" for key in {*keys, *dotted(self.configuration.merged)}), *self.further}
        rest = settle_flags([other_spelling(argument, known) for argument in rest])
        if not wants_help:
            self.configuration.check_keys(keys)
            self._check_options(rest, keys, known)
            tree, typed = with_options(self.configuration.merged, rest)
            self._check_values(tree, typed)
        # Before the options, which win over every file wherever they stand.
        given = [f"--config={self.configuration.text()}"] if self.configuration.files else []
        self.config = parser.parse_args([name, *given, *rest])
        if not wants_help:
            self._settle_seeds(tree)

    def _check_options(self, options: list[str], keys: set[str], known: set[str]) -> None:
        """Refuse an option that is no key; the arguments of a class are checked with the class."""
        for option in options:
            name = option.partition("=")[0].removesuffix("+")
            key = name.removeprefix("--")
            # A key that stands for a class, or for several by name, holds further ones.
            holders = (key.rsplit(".", count)[0] for count in range(1, key.count(".") + 1))
            if not name.startswith("--") or key in keys or any(one in keys for one in holders):
                continue
            if not any(one.startswith(f"{key}.") for one in keys):
                raise UsageError("there is no such option", name, nearest(name, known))

    def _check_values(self, tree: dict[str, Any], typed: dict[str, str]) -> None:
        """Refuse what the signatures of the classes don't allow."""

        def place(key: str) -> str:
            if plain(key) in typed:
                return typed[plain(key)]
            source = self.configuration.source(key)
            return f"{source}: {key}" if source else key

        for group, own in (("model", "model_class"), ("data", "datamodule_class"), ("trainer", None)):
            given = tree.get(group) or {}
            if names_class(given):
                check_class(given["class_path"], given.get("init_args") or {}, group, place)
            elif isinstance(given, dict):
                function = Trainer if own is None else self._classes[own]
                check_arguments(function, given, group, place, lacking=group != "trainer")

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
        root = config.trainer.get("default_root_dir")
        if isinstance(root, str):
            config.trainer.default_root_dir = str(Path(root).expanduser())
        if config.trainer.get("fast_dev_run"):
            # Lightning's own writes last.ckpt at the end of a smoke test, too, which a resumed run would take for its own.
            kept = listed(config.trainer.get("callbacks"))
            config.trainer.callbacks = [
                one for one in kept if not str(one.get("class_path")).endswith("ModelCheckpoint")
            ]
        choose_gpu(config.trainer)
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
            raise innermost(error) from error

    def before_fit(self) -> None:
        """Say what is minimized, once."""
        if self.trainer.is_global_zero and isinstance(self.model, OneStepSR):
            announce(self.model)

    def _last_checkpoint(self) -> str | None:
        """Return the checkpoint that ``--ckpt_path last`` means; ``None``: a training begins.

        Raises:
            ValueError: If there is none, in a command that needs one.
        """
        trainer = self.config[self.subcommand].trainer.as_dict()
        found = last_checkpoint(trainer)
        looked = ", ".join(str(place) for place in places(trainer))
        if found is None and self.subcommand != "fit":
            raise ValueError(f"there is no last.ckpt of this run in {looked}: give --ckpt_path FILE")
        if found is None:
            rank_zero_info(f"There is no last.ckpt of this run in {looked}: the training begins.")
            return None
        rank_zero_info(f"Going on from {found}, step {step_of(found)}.")
        return str(found)

    def _settle_seeds(self, typed: dict[str, Any]) -> None:
        """Let ``--seed_everything`` seed the model's and the data's own draws, where they are given no seed."""
        config = self.config[self._command]
        seed = config.get("seed_everything")
        if isinstance(seed, bool) or not isinstance(seed, int):
            return
        for group in ("model", "data"):
            own = arguments_of(config[group])
            given = typed.get(group) or {}
            given = {**given, **(given.get("init_args") or {})} if isinstance(given, dict) else {}
            if "seed" in own and "seed" not in given:
                own["seed"] = seed


def choose_gpu(trainer: Any) -> None:
    """Make this process' GPU the current one before a model is built, which may be loaded onto the current GPU."""
    import torch

    if trainer.get("accelerator") == "cpu" or not torch.cuda.is_available():
        return
    devices = trainer.get("devices")
    rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    chosen = devices[rank] if isinstance(devices, list) and rank < len(devices) else rank
    torch.cuda.set_device(int(chosen) % torch.cuda.device_count())


def innermost(error: ValueError) -> ValueError:
    """Return the error that a class raised, of which jsonargparse may have made one of its own."""
    found: BaseException | None = error
    while found is not None and (found.__cause__ or found.__context__) is not None:
        found = found.__cause__ or found.__context__
        if isinstance(found, ValueError):
            error = found
    return error


def complete_pairs(path: Path, options: dict[str, Any]) -> None:
    """Make what is missing of the pair store at ``path``; one that was made otherwise is refused.

    A finished store is looked at too: a store in a cache folder may be another teacher's, of an older release.
    """
    known = read_signature("fluxsr.training.pair_maker:make_pairs").parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"make_pairs has no option {unknown[0]!r}; `fluxsr pairs --help` lists them")
    was_there = (path / MANIFEST).is_file()
    try:
        with progress_of("teacher pairs") as report:
            tell_pairs(make_pairs(**{**options, "output": str(path), "progress": report}))
    except ValueError as error:
        hint = ". To train on the pairs as they are: --make_pairs null" if was_there else ""
        raise ValueError(f"{error}{hint}") from error


def unfinished(path: Path) -> bool:
    """Say whether the pair store at ``path`` is missing or has missing shards."""
    return not (path / MANIFEST).is_file() or bool(PairStore.open(path).missing_shards())
