"""Computes what one process of a training run takes, from a step on the meta device."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

import fluxsr.ledger
import fluxsr.like_gpu
from fluxsr.data import SRDataModule
from fluxsr.ledger import ACTIVATIONS, Ledger, NotPlannable, Peak
from fluxsr.models import FluxBackbone
from fluxsr.models.features import find_blocks
from fluxsr.planning.step import (
    AVERAGE,
    BASE,
    BASE_LINEARS,
    FROZEN_ROLES,
    GRADIENTS,
    MODULATION_LAYERS,
    OPTIMIZER,
    PHASES,
    TRAINED,
    VALIDATION,
    Settings,
    make_batch,
    make_validation_batch,
    run_step,
)
from fluxsr.training import OneStepSR

# Bytes of a quantized weight: int8 and fp8 have a scale per row, which is nothing; nf4 has half a byte and, for every 64
# weights, a scale that is quantized to 8 bits itself (arXiv 2305.14314, double quantization: 0.127 bits a weight).
QUANTIZED = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 0.127 / 8}
# Sustained throughput differs that much: 380 to 430 TFLOP/s on H100 in Llama 3's training (arXiv 2407.21783, table 4), which
# is 38 to 43 % of the data sheet's; small batches and short sequences reach half of it.
SLOWER, FASTER = 0.5, 1.5
PHOTO = (1356, 2040)  # (height, width) that most of DIV2K's validation photos have, or less
LR_TIME = 0.5  # what stands in for a T_L that is to be measured
_SHARDED = (BASE, BASE_LINEARS, MODULATION_LAYERS, TRAINED, FROZEN_ROLES, GRADIENTS, OPTIMIZER, AVERAGE)
Sharding = Literal["none", "ddp", "fsdp2"]


@dataclass
class Experiment:
    """A training run as its configuration describes it, instantiated without weights.

    Args:
        module: The module to train.
        data: Data that it is trained on; only its plain arguments are read.
        settings: Settings of the trainer.
        max_steps: Optimizer steps of the whole run; ``None``: open.
        strategy: Strategy, as the trainer's configuration names it.
        options: The configuration as plain values.
    """

    module: OneStepSR
    data: SRDataModule
    settings: Settings
    max_steps: int | None = None
    strategy: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Phase:
    """The most live bytes of a process in one phase of the step, and the phase's floating-point operations."""

    phase: str
    peak_bytes: int
    flops: float


@dataclass
class Validation:
    """The most live bytes while one validation batch is restored and measured, in the middle of a run, and their kinds.

    ``tile`` is the module's; ``None``: whole images.
    """

    height: int
    width: int
    batch_size: int
    tile: int | None
    peak_bytes: int
    peak: dict[str, int]
    flops: float


@dataclass
class Plan:
    """Memory and arithmetic of one training step in one process; bytes are of tensors, per process.

    Attributes:
        crop: Side of the images in pixels; ``None``: teacher pairs of their own size.
        parameters: Counts, of the whole model: ``transformer`` (its modulation included, adapters not), ``modulation`` (the
            blocks' ``norm*.linear``), ``norm_out`` (the last modulation), ``trainable``, ``autoencoder``, ``total``.
        held_bytes: Memory that is kept from step to step, by kind.
        phases: Phases in the order of the step.
        peak_bytes: The largest number of live bytes, in ``peak_phase``.
        peak: Parts of the peak, by kind; activations by the phase that made them.
        flops_per_step: Floating-point operations of an optimizer step, recomputation included.
        tflops: The stated throughput of a device, in 1e12 FLOPs a second.
        seconds_range: Seconds per step at 1.5 and at 0.5 times the throughput: those of a fast and of a slow device.
        hours: Hours that the whole run takes; ``None`` if its length is not set.
        checkpoint_bytes: Bytes of a checkpoint file: trained weights, moving averages and the optimizer's state.
        host_shared_bytes: Bytes of frozen weights, whose files are mapped into host memory while they go to the devices. All
            processes of a machine share them.
        host_bytes: Bytes of host memory for each process on top: what is trained, and a checkpoint while it is written.
        validation: Cost of a validation batch; ``None`` where the configuration has none.
        notes: Assumptions of the plan.
    """

    devices: int
    strategy: Sharding
    precision: str
    batch_size: int
    accumulate_grad_batches: int
    crop: int | None
    parameters: dict[str, int]
    held_bytes: dict[str, int]
    phases: list[Phase]
    peak_bytes: int
    peak_phase: str
    peak: dict[str, int]
    flops_per_step: float
    tflops: float
    seconds_per_step: float
    seconds_range: tuple[float, float]
    steps_per_hour: float
    hours: float | None
    checkpoint_bytes: int
    host_shared_bytes: int
    host_bytes: int
    validation: Validation | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def needed_bytes(self) -> int:
        """The larger of the peaks of a step and of a validation."""
        return self.peak_bytes if self.validation is None else max(self.peak_bytes, self.validation.peak_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def make_plan(
    experiment: Experiment,
    devices: int = 1,
    strategy: str = "auto",
    tflops: float = 400.0,
    photo: tuple[int, int] = PHOTO,
) -> Plan:
    """Run one step of an experiment, and one of its validation, on the meta device and return what they take.

    Args:
        experiment: Is used up: its module goes to the meta device and stays there.
        devices: Processes, one GPU each.
        strategy: ``ddp``, ``fsdp2``, or ``auto``: what the configuration says, else DDP on several devices.
        tflops: 10^12 floating point operations that one GPU sustains in a second: a statement, not a measurement.
        photo: (height, width) of the photos that are validated whole, in pixels; by default that of DIV2K's.

    Raises:
        ValueError: If a number is out of range, or model and strategy don't go together.
    """
    if devices < 1 or not tflops > 0:
        raise ValueError(f"devices must be at least 1 and tflops positive, got {devices} and {tflops}")
    module, settings = experiment.module, experiment.settings
    backbone: Any = module.backbone
    sharding = choose_sharding(strategy, experiment.strategy, devices)
    quantized = getattr(backbone, "quantization", None)
    notes = []
    if quantized is not None and sharding == "fsdp2":
        raise ValueError(f"FSDP2 can't shard {quantized} weights: plan with strategy ddp, or without quantize")
    if sharding == "fsdp2" and (module.adversary is not None or module.adapted_encoder):
        notes.append(
            "an adversary's heads and an adapter of the encoder are whole everywhere, and counted as if sharded"
        )
    module.check_lr_time = False  # there is no data to compare it with
    objective: Any = module.objective
    if not objective.is_settled:
        objective.lr_time = LR_TIME
        notes.append(
            f"T_L is auto, measured on the data: {LR_TIME:g} stands in for it, and no size depends on its value"
        )
        module.build_table()
    module.to("meta")
    trained = sum(map(_bytes, module.trained.parameters().values()))
    frozen = sum(map(_bytes, module.parameters())) - trained
    accumulate = settings.accumulate if module.adversary is None else module.adversary.accumulate_grad_batches
    settings = replace(settings, accumulate=accumulate)
    divisor = devices if sharding == "fsdp2" else 1
    shares = dict.fromkeys(_SHARDED, 1 / divisor)
    if quantized is not None:
        for kind in (BASE_LINEARS, MODULATION_LAYERS):
            shares[kind] *= QUANTIZED[quantized] / backbone.dtype.itemsize
        notes.append(f"{quantized} weights are counted by formula; what a layer unpacks while it runs is not")
    parameters = count_parameters(module)
    extra = {} if divisor == 1 else {"units in flight": units_in_flight(backbone)}
    if sharding == "ddp":
        extra = {"gradient buckets": trained}
    ledger = Ledger(shares)
    batch, photos = make_batch(module, experiment.data), make_validation_batch(experiment.data, photo)
    try:
        run_step(module, batch, settings, ledger, photos)
    except NotPlannable as error:
        raise NotPlannable(error.operation, _place(error)) from error
    except TypeError as error:
        if "meta device" not in str(error):
            raise
        raise NotPlannable("Tensor.numpy", _place(error)) from error  # which torch doesn't dispatch
    more = sum(extra.values())
    peaks = {phase: Peak(peak.total + more, {**peak.parts, **extra}) for phase, peak in ledger.peaks.items()}
    validated = peaks.pop(VALIDATION, None)
    validation = None
    if photos is not None and validated is not None:
        rows, _, height, width = photos.hr_image.shape
        parts, operations = _rounded(validated.parts), ledger.flops.pop(VALIDATION, 0.0)
        validation = Validation(height, width, rows, module.tile, round(validated.total), parts, operations)
    top = max(peaks, key=lambda phase: peaks[phase].total)
    flops = accumulate * sum(ledger.flops.values())
    seconds = flops / (tflops * 1e12)
    kept = {
        kind: held for kind, held in ledger.at_start.items() if kind != "batch" and not kind.startswith(ACTIVATIONS)
    }
    checkpoint = round(divisor * sum(kept.get(kind, 0.0) for kind in (TRAINED, OPTIMIZER, AVERAGE)))
    checkpoint += sum(map(_bytes, module.trained.averages().values()))
    notes.append("bytes of tensors: a CUDA context, the libraries' workspaces and fragmentation come on top")
    notes.append(
        f"{tflops:g} TFLOP/s per GPU is stated, not measured; waiting for data and communication is not counted"
    )
    return Plan(
        devices=devices,
        strategy=sharding,
        precision=settings.precision,
        batch_size=experiment.data.batch_size,
        accumulate_grad_batches=accumulate,
        crop=experiment.data.crop,
        parameters=parameters,
        held_bytes=_rounded(kept),
        phases=[Phase(name, round(peaks[name].total), ledger.flops.get(name, 0.0)) for name in PHASES if name in peaks],
        peak_bytes=round(peaks[top].total),
        peak_phase=top,
        peak=_rounded(peaks[top].parts),
        flops_per_step=flops,
        tflops=tflops,
        seconds_per_step=seconds,
        seconds_range=(seconds / FASTER, seconds / SLOWER),
        steps_per_hour=3600 / seconds,
        hours=None if experiment.max_steps is None else experiment.max_steps * seconds / 3600,
        checkpoint_bytes=checkpoint,
        host_shared_bytes=frozen,
        host_bytes=trained + checkpoint,
        validation=validation,
        notes=notes,
    )


def choose_sharding(asked: str, configured: str, devices: int) -> Sharding:
    """Return how the model is spread over the devices."""
    if asked not in ("auto", "ddp", "fsdp2"):
        raise ValueError(f"strategy must be auto, ddp or fsdp2, got {asked!r}")
    if devices == 1:
        return "none"
    if asked == "auto":
        name = configured.rsplit(".", 1)[-1].lower()
        return "fsdp2" if "fsdp" in name or name == "modelparallelstrategy" else "ddp"
    return "ddp" if asked == "ddp" else "fsdp2"


def count_parameters(module: OneStepSR) -> dict[str, int]:
    """Return numbers of parameters, by part."""
    backbone = module.backbone
    base = backbone.transformer if isinstance(backbone, FluxBackbone) else backbone
    of_blocks = backbone.family.is_block_modulation if isinstance(backbone, FluxBackbone) else lambda name: False
    own = {name: parameter for name, parameter in base.named_parameters() if ".lora_" not in name}
    return {
        "transformer": sum(parameter.numel() for parameter in own.values()),
        "modulation": sum(parameter.numel() for name, parameter in own.items() if of_blocks(name)),
        "norm_out": sum(parameter.numel() for name, parameter in own.items() if name.startswith("norm_out.")),
        "trainable": sum(parameter.numel() for parameter in module.trained.parameters().values()),
        "autoencoder": sum(parameter.numel() for parameter in module.get_submodule("autoencoder").parameters()),
        "total": sum(parameter.numel() for parameter in module.parameters()),
    }


def units_in_flight(backbone: nn.Module) -> float:
    """Return the bytes of FSDP2's units that are whole at a time: what lies outside the blocks, and two blocks.

    One block computes while the next one is gathered.
    """
    transformer: Any = getattr(backbone, "transformer", None)
    if transformer is None:
        return float(sum(map(_bytes, backbone.parameters())))
    sizes = sorted((sum(map(_bytes, block.parameters())) for block in find_blocks(transformer)), reverse=True)
    return float(sum(map(_bytes, transformer.parameters())) - sum(sizes) + sum(sizes[:2]))


def _place(error: BaseException) -> str:
    """Return ``file:line`` of the innermost code that is neither an installed library's nor the planner's own."""
    own = (str(Path(__file__).parent), fluxsr.ledger.__file__, fluxsr.like_gpu.__file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    frames = [f for f in frames if not f.filename.startswith((*own, "<"))]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _rounded(parts: dict[str, float]) -> dict[str, int]:
    return {kind: round(size) for kind, size in sorted(parts.items(), key=lambda item: -item[1]) if size >= 1}
