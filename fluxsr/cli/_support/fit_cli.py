"""Adapts LightningCLI to :class:`OneStepSR` or a module of the user's own; errors are one line."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from fluxsr.cli._support.fit_files import class_named, dotted, names_class, take_configs
from fluxsr.cli._support.last_checkpoint import last_checkpoint, listed, places, step_of
from fluxsr.cli._support.messages import meant, tell
from fluxsr.cli._support.signatures import Parameter, read_signature
from fluxsr.cli.pairs import tell_pairs
from fluxsr.data import PairStore, SRDataModule
from fluxsr.data.pair_store import MANIFEST
from fluxsr.progress import progress_of
from fluxsr.training import OneStepSR
from fluxsr.training.pair_maker import make_pairs

if TYPE_CHECKING:
    from fluxsr.planning import Experiment

TRAINER_DEFAULTS = {"plugins": [{"class_path": "fluxsr.training.AtomicCheckpointIO"}]}
LONGEST = 300  # characters of a library's message
# Lines of jsonargparse's errors that say which types were tried, and the whole value where it is no simple one.
_TRIED = re.compile(
    r"(Does not validate against any|Subtypes?[ :]|Errors:|Given value type:|Given value: ([\[{]|NestedArg)|Expected a path "
    r"|Expected a <class 'NoneType'>|Not a valid subclass|Subclass types|a (class path|dict) )"
)
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
_GROUPS = ("model", "data", "trainer")


class FitParser(LightningArgumentParser):
    """Lightning's parser; a mistake is one line, which says what an unknown name was probably meant to be."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage, which has hundreds of options."""
        unknown = re.search(r"(?:accept option|Option|unrecognized arguments:) '?(?:--)?([\w.-]+)'?", message)
        if unknown is not None and "did you mean" not in message:
            known = {prefix for key in keys_of(self) for prefix in accumulate(key.split("."), "{}.{}".format)}
            parts = accumulate(unknown[1].split("."), "{}.{}".format)
            message += meant(next((one for one in parts if one not in known), unknown[1]), known)
        raise ValueError(message) from ex


class FluxSRCLI(LightningCLI):
    """LightningCLI, and a pair store that is made where the configuration says how and none is there."""

    def __init__(self, arguments: list[str], **options: Any) -> None:
        """Read the files after ``--config``, then do as LightningCLI does.

        Where ``model`` or ``data`` has a ``class_path``, that class is trained, else OneStepSR on SRDataModule.
        """
        if os.getcwd() not in sys.path:  # modules of the user's own, as for `python -m`
            sys.path.append(os.getcwd())
        self._command = arguments[0]
        self.configuration, self._options = take_configs(arguments[1:])
        own_model, own_data = (names_class(self.configuration.merged.get(name)) for name in ("model", "data"))
        super().__init__(
            LightningModule if own_model else OneStepSR,
            LightningDataModule if own_data else SRDataModule,
            subclass_mode_model=own_model,
            subclass_mode_data=own_data,
            args=arguments,
            parser_class=FitParser,
            **options,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # where Lightning asks, it has an instance
        """Return the command that runs: a parser for each of the four would take three times as long."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return Lightning's parser, of one command or of all; its options are written out."""
        # prog: what stands in sys.argv[0] may be "-c" or "__main__.py".
        return super().init_parser(**{"prog": "fluxsr", **kwargs}, allow_abbrev=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Merge the files by key, which jsonargparse doesn't do inside ``model.losses``, and parse them with the options."""
        name, rest = self._command, self._options
        wants_help = any("help" in one for one in rest)
        if not self.configuration.files and not wants_help and not any(one.startswith("--model.") for one in rest):
            raise ValueError(
                f"a configuration is needed: fluxsr {name} --config FILE (`fluxsr configs` lists those that come with the "
                "package, by name)"
            )
        keys = {*keys_of(self._parser(name)), *dotted(self.configuration.merged)}
        # Before the options, which win over every file wherever they stand.
        text = yaml.safe_dump(self.configuration.merged, sort_keys=False, allow_unicode=True, width=10**6)
        files = [f"--config={text}"] if self.configuration.files else []
        try:
            self.config = parser.parse_args([name, *files, *as_keys(rest, keys)])
        except ValueError as error:
            raise ValueError(self._explained(str(error))) from error
        self._settle_seeds()

    def _explained(self, message: str) -> str:
        """Return an error of jsonargparse in one line: the key and its file, what is wrong there, the value."""
        keys = [key for key in re.findall(r'Parser key "(.+?)"', message) if key != "config"]
        lines = [line.strip(" -") for line in re.sub(r'Parser key ".+?":', "", message).splitlines()]
        text = " ".join(dict.fromkeys(line for line in lines if line and not _TRIED.match(line)))
        unknown = re.search(r"[Oo]ption '([\w.]+)'", text)
        value = re.search(r"(?:Got value:|Given value:|class_path) '?([^\n']+)", message)
        name = unknown[1] if unknown else keys[-1] if keys else ""
        place = self.configuration.place(keys[0] if keys else "", name, None if unknown or not value else value[1])
        if "subclass of LossTerm" in text:
            text += "; a loss is an argument of a term: class_path: fluxsr.training.ImageTerm, init_args: {loss: ...}"
        text = ": ".join([*([place] if place else keys), re.sub(r"<class '([\w.]+)'>", r"\1", text)])
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 4].rstrip()} ..."

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
        if config.ckpt_path is not None and not unfinished(path, config.make_pairs):
            return
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # Lightning hangs the rank on the function
            complete_pairs(path, config.make_pairs)
        else:  # one writer; the other processes of torchrun or SLURM wait for it
            while unfinished(path, config.make_pairs):
                time.sleep(2)

    def instantiate_classes(self) -> None:
        """Instantiate; what a class of the user's own refuses is said without all the types that were tried."""
        with plain_errors():
            super().instantiate_classes()

    def before_fit(self) -> None:
        """Say what is minimized, once, so that a missing term is seen at once."""
        if self.trainer.is_global_zero and isinstance(self.model, OneStepSR):
            tell(f"{'term':<16}weight")
            for name, weight, what in losses_of(self.model):
                tell(f"{name:<16}{f'{weight:g}' if weight else '0: off':<8}{what}")

    def _last_checkpoint(self) -> str | None:
        """Return the checkpoint that ``--ckpt_path last`` means; ``None``: a training begins."""
        trainer = self.config[self.subcommand].trainer.as_dict()
        found = last_checkpoint(trainer)
        looked = ", ".join(dict.fromkeys(str(folder) for folder, _ in places(trainer)))
        if found is None and self.subcommand != "fit":
            raise ValueError(f"there is no last.ckpt of this run in {looked}: give --ckpt_path FILE")
        if found is None:
            rank_zero_info(f"There is no last.ckpt of this run in {looked}: the training begins.")
            return None
        rank_zero_info(f"Going on from {found}, step {step_of(found)}.")
        return str(found)

    def _settle_seeds(self) -> None:
        """Let ``--seed_everything`` seed the model's and the data's own draws, where they are given no seed."""
        config = self.config.get(self._command) or {}
        seed = config.get("seed_everything")
        if isinstance(seed, bool) or not isinstance(seed, int):
            return
        files = dotted(self.configuration.merged)
        for group in ("model", "data"):
            own = arguments_of(config[group])
            names = (f"{group}.seed", f"{group}.init_args.seed")
            given = any(name in files or any(one.startswith(f"--{name}") for one in self._options) for name in names)
            if "seed" in own and not given:
                own["seed"] = seed


class SavedConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the logger's folder, or below ``default_root_dir`` where the logger has none (MLflow's)."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.save_to_log_dir = trainer.log_dir is not None  # Lightning has an assertion there
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self.save_to_log_dir:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=True)


def keys_of(parser: LightningArgumentParser) -> list[str]:
    """Return the keys of a parser, and of the commands that are given to it."""
    commands = parser._subcommands_action.choices.values() if parser._subcommands_action else ()
    return [action.dest for one in (*commands, parser) for action in one._actions]


def as_keys(arguments: list[str], known: Collection[str]) -> list[str]:
    """Return options as the parser knows them: keys with their underscores, flags with ``=true`` or ``=false``."""
    keys = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        name, sign, value = argument.partition("=")
        if name.startswith("--") and name[2:].replace("-", "_") in known:
            name = f"--{name[2:].replace('-', '_')}"
        key = name.removeprefix("--").removeprefix("no-")
        if not sign and name.startswith("--") and key.split(".")[0] in _GROUPS and not key.endswith(".help"):
            if name.startswith("--no-"):
                name, sign, value = f"--{key}", "=", "false"
            elif following.startswith("--"):
                sign, value = "=", "true"
        keys.append(f"{name}{sign}{value}")
    return keys


def derives_from(ours: type, section: Any) -> bool:
    """Say whether a parsed ``model`` or ``data`` is of a class of ours, which it is unless it names another."""
    named = class_named(section["class_path"]) if "class_path" in section else ours
    return isinstance(named, type) and issubclass(named, ours)


def arguments_of(section: Any) -> Any:
    """Return the constructor's arguments in a parsed ``model`` or ``data``, which may name a class."""
    return (section.get("init_args") or {}) if "class_path" in section else section


def losses_of(module: OneStepSR) -> list[tuple[str, float, str]]:
    """Return (name, weight, what it is) of the objective and of every term: what a training will minimize."""
    distance = "" if module.distance is None else f", distance {type(module.distance).__name__}"
    lines = [("flow", float(module.flow_weight), f"{type(module.objective).__name__}{distance}")]
    for name, term in module.losses.items():
        crop, every = getattr(term, "crop", None), getattr(term, "every", 1)
        what = [type(getattr(term, "loss", term)).__name__, f"crops of {crop}" if crop else ""]
        what.append(f"every {every} steps" if every > 1 else "")
        lines.append((name, float(getattr(term, "weight", 1.0)), ", ".join(filter(None, what))))
    if module.adversary is not None:
        lines.append(("adversarial", float(module.adversary.weight), type(module.adversary).__name__))
    return lines


def choose_gpu(trainer: Any) -> None:
    """Make this process' GPU the current one before a model is built, which may be loaded onto the current GPU."""
    import torch

    if trainer.get("accelerator") == "cpu" or not torch.cuda.is_available():
        return
    devices = trainer.get("devices")
    rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    chosen = devices[rank] if isinstance(devices, list) and rank < len(devices) else rank
    torch.cuda.set_device(int(chosen) % torch.cuda.device_count())


@contextmanager
def plain_errors() -> Iterator[None]:
    """Let what a class refuses be said in its own words: jsonargparse may wrap all the types around it that it tried."""
    try:
        yield
    except ValueError as error:
        plain, cause = error, error.__cause__ or error.__context__
        while cause is not None:
            plain = cause if isinstance(cause, ValueError) else plain
            cause = cause.__cause__ or cause.__context__
        raise plain from error


def complete_pairs(path: Path, options: dict[str, Any]) -> None:
    """Make what is missing of the pair store at ``path``; a finished one is looked at too: it may be another teacher's."""
    unknown = sorted(set(options) - set(_pairs_options()))
    if unknown:
        raise ValueError(f"make_pairs has no option {unknown[0]!r}; `fluxsr pairs --help` lists them")
    was_there = (path / MANIFEST).is_file()
    try:
        with progress_of("teacher pairs") as report:
            tell_pairs(make_pairs(**{**options, "output": str(path), "progress": report}))
    except ValueError as error:
        hint = ". To train on the pairs as they are: --make_pairs null" if was_there else ""
        raise ValueError(f"{error}{hint}") from error


def unfinished(path: Path, options: dict[str, Any]) -> bool:
    """Say whether the pair store at ``path`` is missing, is for another number of pairs, or has missing shards."""
    if not (path / MANIFEST).is_file():
        return True
    store = PairStore.open(path)
    num = options.get("num", _pairs_options()["num"].default)
    return store.num_asked != num or bool(store.missing_shards())


def _pairs_options() -> dict[str, Parameter]:
    return read_signature("fluxsr.training.pair_maker:make_pairs")[1]


def _matters(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)


@contextmanager
def without_noise() -> Iterator[None]:
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


def read_experiment(arguments: list[str], text_tokens: int | None = None) -> Experiment:
    """Parse the arguments of ``fluxsr fit`` as it does, and instantiate what they describe without weights."""
    import torch

    from fluxsr.models.prompts import no_prompt
    from fluxsr.planning import Experiment, Settings
    from fluxsr.planning.step import quiet

    class Reader(FluxSRCLI):
        """Reads what `fluxsr fit` would run, and runs nothing."""

        def before_instantiate_classes(self) -> None:
            """Look for no pairs, and make none."""

        def instantiate_classes(self) -> None:
            """Leave that to the caller: a trainer would ask for its GPUs."""

        def _run_subcommand(self, subcommand: str) -> None:
            """Run nothing."""

    with quiet():  # LightningCLI remarks that arguments stand on the command line, too
        cli = Reader(
            ["fit", *arguments],
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": "omegaconf+"},
        )
    config = cli.config
    options = config.fit.as_dict()
    for name, ours in (("model", OneStepSR), ("data", SRDataModule)):
        if not derives_from(ours, options[name]):
            raise ValueError(f"this is for a {ours.__name__} alone, and {options[name]['class_path']} is none")
        options[name] = arguments_of(options[name])
    if text_tokens == 0 and "prompt" in (options["model"].get("backbone", {}).get("init_args") or {}):
        arguments_of(config.fit.model).backbone.init_args.prompt = None
    for key in ("callbacks", "logger", "plugins", "strategy", "profiler"):
        config.fit.trainer.pop(key, None)
    with quiet(), torch.device("meta"), plain_errors():
        built = cli.parser.instantiate_classes(config).fit
        backbone = built.model.backbone
        if text_tokens and getattr(backbone, "text_tokens", 0):
            backbone.set_prompt(no_prompt(backbone.transformer.config, text_tokens))
    trainer, strategy = options["trainer"], options["trainer"].get("strategy") or "auto"
    settings = Settings(
        precision=str(trainer.get("precision") or "32-true"),
        cuda=trainer.get("accelerator") != "cpu",
        accumulate=trainer.get("accumulate_grad_batches") or 1,
        gradient_clip_val=trainer.get("gradient_clip_val"),
        average=any(str(one.get("class_path", "")).endswith(".EMA") for one in listed(trainer.get("callbacks"))),
    )
    return Experiment(
        module=built.model,
        data=built.data,
        settings=settings,
        max_steps=trainer["max_steps"] if (trainer.get("max_steps") or -1) > 0 else None,
        strategy=str(strategy.get("class_path", "auto") if isinstance(strategy, dict) else strategy),
        options=options,
    )
