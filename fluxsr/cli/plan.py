"""Runs ``fluxsr plan``: it computes what a training run takes, before anything is downloaded or rented."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from fluxsr.cli._support.command import Command
from fluxsr.cli._support.signatures import width_and_height
from fluxsr.sizes import memory_size

NOTES = Path(__file__).parent.joinpath("_support", "plan_notes.txt").read_text("utf-8")

COMMAND = Command(
    "plan",
    ("fluxsr.cli.plan:plan",),
    usage="--config FILE [--config PRESET ...] [options] [options of fluxsr fit]",
    examples="""
    fluxsr plan --config fluxsr_klein4b
    fluxsr plan --config fluxsr_flux1dev --devices 8 --strategy fsdp2 --memory 48GB
    fluxsr plan --config train.yaml --config preset.yaml --model.backbone.init_args.lora_rank 16 --format json
    """,
    notes=NOTES,
    values={"memory": memory_size, "reserve": memory_size, "val_photo": width_and_height},
    shown={"memory": "SIZE", "reserve": "SIZE", "val_photo": "WxH"},
    hidden=frozenset({"rest"}),
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options, rest = COMMAND.parse_known(arguments)
    plan(rest, **options)


def plan(
    rest: list[str],
    *,
    devices: int = 1,
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto",
    tflops: float = 400.0,
    memory: int | None = None,
    reserve: int = 2_000_000_000,
    text_tokens: int | None = None,
    val_photo: tuple[int, int] = (1356, 2040),
    format: Literal["text", "json"] = "text",
) -> None:
    """Say what a training run takes on each GPU: memory by phase and by part, FLOPs, time, the size of a checkpoint.

    The configuration is read as `fluxsr fit` reads it, the networks are built without weights, and one training step runs on
    tensors that have shapes and no contents. So nothing is downloaded, no GPU is needed, and files that the configuration
    names (pairs, photos, a prompt, adapters) need not exist yet.

    Args:
        rest: The options of ``fluxsr fit``.
        devices: GPUs of the run, over all nodes.
        strategy: Strategy for several GPUs; auto: as trainer.strategy says, else ddp.
        tflops: 10^12 operations a second that one GPU sustains: stated, not measured.
        memory: Memory of one GPU, for example 24GB or 80GiB; the plan then says whether the run fits.
        reserve: Part of that memory left to the CUDA context, libraries and fragmentation (default: 2GB, assumed).
        text_tokens: Length of the prompt (default: the file's own, 512 without a file).
        val_photo: Size of the photos that are validated whole (default: 2040x1356, DIV2K's, assumed).
        format: Output for people or for scripts.
    """
    from fluxsr.cli._support.fit_cli import read_experiment
    from fluxsr.planning import Experiment, advise, make_plan
    from fluxsr.planning.text import advice_text, to_text

    def read(more: list[str]) -> Experiment:
        return read_experiment([*rest, *more], text_tokens)

    experiment = read([])
    found = make_plan(experiment, devices, strategy, tflops, val_photo)
    fits, advice = True, []
    if memory is not None:
        limit = memory - reserve
        fits = found.needed_bytes <= limit
        if not fits:
            print("it does not fit; planning what could be switched on", file=sys.stderr, flush=True)
            advice = advise(read, experiment, found, limit, strategy=strategy, photo=val_photo)
    if format == "json":
        document = found.to_dict()
        if memory is not None:
            document |= {"memory_bytes": memory, "reserve_bytes": reserve, "fits": fits}
            document["advice"] = [vars(one) for one in advice]
        print(json.dumps(document, indent=2))
    else:
        print(to_text(found))
        if memory is not None:
            print(advice_text(fits, advice, memory, reserve))
