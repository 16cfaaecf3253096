"""Builds an experiment on the meta device from the arguments of ``fluxsr fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxsr.planning import Experiment


def read_experiment(arguments: list[str], text_tokens: int | None = None) -> Experiment:
    """Parse the arguments of ``fluxsr fit`` as it does, and instantiate what they describe without weights.

    Args:
        arguments: Arguments of ``fluxsr fit``.
        text_tokens: Length of the prompt.
    """
    import torch

    from fluxsr.cli._support.fit_cli import FluxSRCLI, arguments_of, derives_from, plain_errors
    from fluxsr.cli._support.last_checkpoint import listed
    from fluxsr.data import SRDataModule
    from fluxsr.models.prompts import no_prompt
    from fluxsr.planning import Experiment, Settings
    from fluxsr.planning.step import quiet
    from fluxsr.training import OneStepSR

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
