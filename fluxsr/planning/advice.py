"""Suggests what to switch on so that a training run fits; each change is planned like the run itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fluxsr.models import FluxBackbone
from fluxsr.planning.plan import PHOTO, Experiment, Plan, make_plan


@dataclass(frozen=True)
class Change:
    """One thing to switch on, in words and as arguments of ``fluxsr fit``; ``None``: devices or strategy are as before."""

    what: str
    arguments: tuple[str, ...] = ()
    devices: int | None = None
    strategy: str | None = None


@dataclass(frozen=True)
class Advice:
    """A change, in words and as arguments of ``fluxsr fit``, with the peak that it leads to.

    Attributes:
        peak_bytes: Per process, with the change: of a step, or of a validation where that is larger.
        saves_bytes: Bytes that the peak shrinks by.
        steps_per_hour: Steps per hour with the change, at the stated throughput.
        fits: Whether the peak fits the memory.
    """

    what: str
    arguments: list[str]
    peak_bytes: int
    saves_bytes: int
    steps_per_hour: float
    fits: bool


def advise(
    read: Callable[[list[str]], Experiment],
    experiment: Experiment,
    plan: Plan,
    limit: float,
    *,
    strategy: str = "auto",
    photo: tuple[int, int] = PHOTO,
) -> list[Advice]:
    """Plan every change that the configuration leaves open, and the cheap ones together; the most saving first.

    Args:
        read: Makes the experiment with further arguments of ``fluxsr fit``.
        experiment: Experiment as it is.
        plan: Plan of the experiment.
        limit: Bytes that a device has for tensors.
        strategy: Strategy that the plan was asked for.
        photo: (height, width) of the photos that are validated whole, in pixels.
    """
    changes = possible_changes(experiment, plan)
    local = [one for one in changes if one.arguments and one.devices is None and "quantize" not in one.what]
    if len(local) > 1:
        together = tuple(argument for change in local for argument in change.arguments)
        changes.append(Change("all of these but quantization, FSDP2 and devices", together))
    found = []
    for change in changes:
        new = make_plan(
            read(list(change.arguments)),
            change.devices or plan.devices,
            change.strategy or strategy,
            plan.tflops,
            photo,
        )
        saved = plan.needed_bytes - new.needed_bytes
        if saved > 0:
            needed = new.needed_bytes
            found.append(
                Advice(change.what, list(change.arguments), needed, saved, new.steps_per_hour, needed <= limit)
            )
    return sorted(found, key=lambda advice: -advice.saves_bytes)


def possible_changes(experiment: Experiment, plan: Plan) -> list[Change]:
    """Return what of the memory ladder a configuration does not have yet."""
    model: dict[str, Any] = experiment.options.get("model", {})
    backbone, autoencoder, objective = (
        (model.get(part) or {}).get("init_args") or {} for part in ("backbone", "autoencoder", "objective")
    )
    changes = []
    prefix = "--model.backbone.init_args"
    lora = backbone.get("trainable") == "lora"
    if backbone.get("gradient_checkpointing") is False:
        changes.append(Change("gradient_checkpointing", (f"{prefix}.gradient_checkpointing=true",)))
    if backbone.get("dtype") == "float32" and lora:
        changes.append(Change("the frozen base in bfloat16", (f"{prefix}.dtype=bfloat16",)))
    own: Any = experiment.module.backbone
    if backbone.get("text_stream") is True and not own.text_tokens:
        changes.append(Change("text_stream left out", (f"{prefix}.text_stream=false",)))
    tables = isinstance(own, FluxBackbone) and own.family.tables
    if model.get("modulation_table") is False and lora and tables and "time_sampler" in objective:
        grid = "--model.objective.init_args.time_sampler"
        changes.append(
            Change(
                "modulation_table",
                ("--model.modulation_table=true", f"{grid}=fluxsr.flows.GridTimes", f"{grid}.init_args.steps=16"),
            )
        )
    if "quantize" in backbone and backbone["quantize"] is None and lora and plan.strategy != "fsdp2":
        changes += [Change(f"quantize: {kind}", (f"{prefix}.quantize={kind}",)) for kind in ("int8", "nf4")]
    if autoencoder.get("checkpoint_decode") is False and autoencoder.get("source") != "pixel":
        changes.append(Change("checkpoint_decode", ("--model.autoencoder.init_args.checkpoint_decode=true",)))
    if plan.validation is not None and plan.validation.tile is None and experiment.data.val_crop is None:
        changes.append(Change("validation in tiles of 1024 pixels", ("--model.tile=1024",)))
    cropped = _halved_crops(model, plan.crop)
    if cropped:
        changes.append(Change("image terms on a crop of half the side", cropped))
    if "8bit" not in str(model.get("optimizer")):
        changes.append(Change("8-bit Adam", ("--model.optimizer=fluxsr.training.AdamW8bit",)))
    rank = backbone.get("lora_rank")
    if lora and isinstance(rank, int) and rank >= 8 and not backbone.get("lora_weights"):
        changes.append(Change(f"LoRA of rank {rank // 2}", (f"{prefix}.lora_rank={rank // 2}",)))
    if plan.batch_size > 1:
        where = "trainer" if experiment.module.adversary is None else "model.adversary.init_args"
        halved = f"--data.batch_size={plan.batch_size // 2}"
        twice = f"--{where}.accumulate_grad_batches={2 * plan.accumulate_grad_batches}"
        changes.append(Change("half the batch, accumulated twice as long", (halved, twice)))
    if plan.strategy != "fsdp2" and backbone.get("quantize") is None:
        devices = max(2, plan.devices)
        changes.append(Change(f"FSDP2 over {devices} devices", ("--trainer.strategy=fsdp2",), devices, "fsdp2"))
    if plan.strategy == "fsdp2":
        changes.append(Change(f"{2 * plan.devices} devices", (), 2 * plan.devices))
    return changes


def _halved_crops(model: dict[str, Any], crop: int | None) -> tuple[str, ...]:
    changed = []
    for name, term in (model.get("losses") or {}).items():
        arguments = term.get("init_args", {})
        if "estimates" in arguments and crop is not None:  # an image term
            side = arguments.get("crop") or crop
            if side >= 64:
                changed.append(f"--model.losses.{name}.init_args.crop={side // 2}")
    return tuple(changed)
