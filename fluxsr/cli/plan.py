"""``fluxsr plan``: what a training run takes, before anything is downloaded or rented."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from fluxsr.cli.run import argument_parser
from fluxsr.cli.suggest import options_of
from fluxsr.cli.values import count, positive

if TYPE_CHECKING:
    from fluxsr.planning import Advice, Experiment, Plan

WHAT = """\
Say what a training run takes on each GPU: memory by phase and by part, FLOPs, time, the size of a checkpoint. The configuration
is read as `fluxsr fit` reads it, the networks are built without weights, and one training step runs on tensors that have
shapes and no contents. So nothing is downloaded, no GPU is needed, and files that the configuration names (pairs, photos,
a prompt, adapters) need not exist yet.
"""

EXAMPLES = """
fluxsr plan --config examples/configs/fluxsr_flux1dev.yaml
fluxsr plan --config examples/configs/fluxsr_flux1dev.yaml --devices 8 --strategy fsdp2 --memory 48GB
fluxsr plan --config train.yaml --config preset.yaml --model.backbone.init_args.lora_rank 16 --format json
"""

NOTES = """\
All other options are those of fluxsr fit, --config among them.

what it prints:
  parameters      transformer (its modulation included), modulation (the blocks' norm*.linear), trainable
  held            what lives from step to step: frozen base, adapters, gradients, optimiser, moving average, autoencoder, losses
  by phase        the most bytes that are alive in it, and its FLOPs; recomputation by checkpointing counts where it happens
  peak            the largest of these, and what it is made of
  time            from the FLOPs and --tflops, which you state; it is sustained throughput, not the data sheet's
  checkpoint      adapters, moving averages and the optimiser's state; never the base

With --memory, and if the peak does not fit: what to switch on, each planned like the run itself, with what it saves.

what it assumes:
  A GPU, unless trainer.accelerator is cpu: CUDA's autocast rules, attention and norms in fused kernels.
  A hub id of FLUX.1-dev or -schnell has that architecture; other models need a local folder with its config.json.
  A prompt file that does not exist has 512 tokens (--text-tokens says otherwise); an adapter file has rank lora_rank, or 64.
  int8 and fp8 take 1 byte a weight, nf4 0.52; an 8-bit Adam 2 bytes a weight and 8 for every 256 of them. These are formulas.
  Callbacks take nothing, except EMA. Validation is not planned: tile bounds what it takes."""


def main(arguments: list[str]) -> None:
    """Run the command."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    from fluxsr.planning import advise, make_plan

    def read(more: list[str]) -> Experiment:
        return read_experiment([*rest, *more], options.text_tokens, set(options_of(parser)))

    experiment = read([])
    plan = make_plan(experiment, options.devices, options.strategy, options.tflops)
    fits, advice = True, []
    if options.memory is not None:
        limit = options.memory - options.reserve
        fits = plan.peak_bytes <= limit
        if not fits:
            print("it does not fit; planning what could be switched on", file=sys.stderr, flush=True)
            advice = advise(read, experiment, plan, limit, strategy=options.strategy)
    if options.format == "json":
        document = plan.to_dict()
        if options.memory is not None:
            document |= {"memory_bytes": options.memory, "reserve_bytes": options.reserve, "fits": fits}
            document["advice"] = [vars(one) for one in advice]
        print(json.dumps(document, indent=2))
    else:
        print(to_text(plan))
        if options.memory is not None:
            print(advice_text(fits, advice, options.memory, options.reserve))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own options; it leaves those of ``fluxsr fit`` alone."""
    parser = argument_parser(
        "plan", WHAT, "--config FILE [--config PRESET ...] [options] [options of fluxsr fit]", EXAMPLES, NOTES
    )
    add = parser.add_argument
    add("--devices", type=count, default=1, metavar="N", help="GPUs of the run, over all nodes (default: 1)")
    add(
        "--strategy",
        choices=("auto", "ddp", "fsdp2"),
        default="auto",
        help="how it is spread over them; auto: as trainer.strategy says, else ddp (default: auto)",
    )
    add(
        "--tflops",
        type=positive,
        default=400.0,
        metavar="X",
        help="10^12 operations a second that one GPU sustains: stated, not measured (default: 400)",
    )
    add("--memory", type=size, metavar="SIZE", help="memory of one GPU, for example 24GB or 80GiB: say whether it fits")
    add(
        "--reserve",
        type=size,
        default=2 * 10**9,
        metavar="SIZE",
        help="part of it that is left to the CUDA context, libraries and fragmentation (default: 2GB, assumed)",
    )
    add(
        "--text-tokens",
        type=tokens,
        metavar="N",
        help="length of the prompt (default: the file's own, 512 without a file)",
    )
    add("--format", choices=("text", "json"), default="text", help="for people or for scripts (default: text)")
    return parser


def read_experiment(arguments: list[str], text_tokens: int | None = None, further: Collection[str] = ()) -> Experiment:
    """Parse the arguments of ``fluxsr fit`` as it does, and instantiate what they describe without weights.

    Args:
        arguments: of ``fluxsr fit``.
        text_tokens: length of the prompt.
        further: the options of ``fluxsr plan`` itself, which one among the arguments may have been meant to be.
    """
    import torch

    from fluxsr.cli.classes import arguments_of, derives_from
    from fluxsr.cli.lightning import FluxSRCLI
    from fluxsr.data import SRDataModule
    from fluxsr.models import PromptEmbedding
    from fluxsr.planning import Experiment, Settings
    from fluxsr.planning.step import quiet
    from fluxsr.training import OneStepSR

    class Reader(FluxSRCLI):
        """Stops where `fluxsr fit` would begin."""

        def before_instantiate_classes(self) -> None:
            """Look for no pairs, and make none."""

        def instantiate_classes(self) -> None:
            """Instantiate the model and its data alone: a trainer would ask for its GPUs."""
            options = self.config[self.subcommand].as_dict()
            for name, ours in (("model", OneStepSR), ("data", SRDataModule)):
                if not derives_from(ours, options[name]):
                    raise ValueError(f"this is for a {ours.__name__} alone, and {options[name]['class_path']} is none")
                options[name] = arguments_of(options[name])
            whole = self.config.clone()
            if text_tokens == 0 and "prompt" in (options["model"].get("backbone", {}).get("init_args") or {}):
                whole[self.subcommand].model.backbone.init_args.prompt = None
            for key in ("callbacks", "logger", "plugins", "strategy", "profiler"):
                whole[self.subcommand].trainer.pop(key, None)
            with torch.device("meta"), self.plain_errors():
                built = self.parser.instantiate_classes(whole)[self.subcommand]
                backbone = built.model.backbone
                if text_tokens and getattr(backbone, "text_tokens", 0):
                    of_width = backbone.prompt_embeds.shape[-1]
                    embeds = torch.zeros(1, text_tokens, of_width)
                    backbone.set_prompt(PromptEmbedding(embeds, torch.zeros(backbone.pooled_prompt_embeds.shape)))
            trainer = options["trainer"]
            self.experiment = Experiment(
                module=built.model,
                data=built.data,
                settings=Settings(
                    precision=str(trainer.get("precision") or "32-true"),
                    cuda=trainer.get("accelerator") != "cpu",
                    accumulate=trainer.get("accumulate_grad_batches") or 1,
                    gradient_clip_val=trainer.get("gradient_clip_val"),
                    average=any(str(one.get("class_path", "")).endswith(".EMA") for one in callbacks(trainer)),
                ),
                max_steps=trainer["max_steps"] if (trainer.get("max_steps") or -1) > 0 else None,
                strategy=strategy_name(trainer.get("strategy")),
                options=options,
            )

        def _run_subcommand(self, subcommand: str) -> None:
            """Run nothing."""

    Reader.further, Reader.command = further, "fluxsr plan"
    with quiet():  # LightningCLI remarks that arguments stand on the command line, too
        return Reader(
            ["fit", *arguments],
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": "omegaconf+"},
        ).experiment


def callbacks(trainer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the callbacks of a trainer's configuration, one or several."""
    found = trainer.get("callbacks") or []
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]


def strategy_name(strategy: Any) -> str:
    """Return the name or the class of a trainer's strategy."""
    return str(strategy.get("class_path", "auto") if isinstance(strategy, dict) else strategy or "auto")


def to_text(plan: Plan) -> str:
    """Return a plan as lines for people."""
    count = plan.parameters
    sharding = {"none": "one device", "ddp": f"DDP on {plan.devices}", "fsdp2": f"FSDP2 over {plan.devices}"}[
        plan.strategy
    ]
    run = "" if plan.hours is None else f", the run {plan.hours:,.1f} h"
    lines = [
        f"per GPU, {sharding}; batch {plan.batch_size} x {plan.accumulate_grad_batches} accumulated, crop {plan.crop}, "
        f"precision {plan.precision}",
        "",
        "parameters",
        f"  transformer     {count['transformer']:>17,}",
        f"    modulation    {count['modulation']:>17,}   (and norm_out {count['norm_out']:,})",
        f"  trainable       {count['trainable']:>17,}",
        f"  autoencoder     {count['autoencoder']:>17,}",
        "",
        "held from step to step",
        *(f"  {kind:<24}{gigabytes(size):>12}" for kind, size in plan.held_bytes.items()),
        f"  {'':<24}{gigabytes(sum(plan.held_bytes.values())):>12}",
        "",
        "by phase                        peak          FLOP a batch",
        *(f"  {one.phase:<24}{gigabytes(one.peak_bytes):>12}{operations(one.flops):>22}" for one in plan.phases),
        "",
        f"peak {gigabytes(plan.peak_bytes)}, in the phase {plan.peak_phase}",
        *(f"  {kind:<24}{gigabytes(size):>12}" for kind, size in plan.peak.items()),
        "",
        f"step        {operations(plan.flops_per_step)} a GPU; at {plan.tflops:g} TFLOP/s (stated) "
        f"{plan.seconds_per_step:.3g} s, {plan.steps_per_hour:,.0f} steps an hour{run}",
        f"checkpoint  {gigabytes(plan.checkpoint_bytes)}",
        "",
        *(f"note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


def advice_text(fits: bool, advice: list[Advice], memory: int, reserve: int) -> str:
    """Return whether it fits and what to do, as lines for people."""
    room = f"{gigabytes(memory)} less {gigabytes(reserve)} reserve"
    if fits:
        return f"\nfits: into {room}"
    lines = [f"\ndoes not fit into {room}; what saves memory:", "", "      saves        peak   fits   steps/h"]
    for one in advice:
        mark = "yes" if one.fits else "no"
        sizes = f"{gigabytes(one.saves_bytes):>11} {gigabytes(one.peak_bytes):>11}"
        lines.append(f"{sizes}   {mark:<4}{one.steps_per_hour:>10,.0f}   {one.what}")
        lines += [f"{'':<44}{argument}" for argument in one.arguments]
    return "\n".join(lines)


def gigabytes(number: float) -> str:
    """Write bytes for people."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.2f} MB"


def operations(number: float) -> str:
    """Write floating-point operations for people."""
    return f"{number / 1e12:,.2f} TFLOP" if number >= 1e11 else f"{number / 1e9:,.2f} GFLOP"


def size(text: str) -> int:
    """Parse a number of bytes, such as ``24GB`` (10^9) or ``80GiB`` (2^30)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a size with its unit, such as 24GB or 80GiB, got {text!r}")
    power = "KMGT".find(match[2].upper()) + 1
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def tokens(text: str) -> int:
    """Parse a number of tokens, which may be none."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)
