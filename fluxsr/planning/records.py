"""Defines what is planned, and what a plan says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fluxsr.data import SRDataModule
from fluxsr.planning.step import Settings
from fluxsr.training import OneStepSR

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
    """The largest number of live bytes in one phase of the step, and its FLOPs.

    Attributes:
        phase: Its name, for example ``forward``.
        peak_bytes: Per process.
        flops: Floating-point operations of one optimizer step.
    """

    phase: str
    peak_bytes: int
    flops: float


@dataclass
class Validation:
    """The largest number of live bytes while one validation batch is restored and measured, in the middle of a run.

    Attributes:
        height: Height of its images in pixels.
        width: Width of its images in pixels.
        batch_size: Its images.
        tile: The module's; ``None``: whole images.
        peak_bytes: Per process, all that is held included.
        peak: Parts of the peak, by kind.
        flops: Floating-point operations of the batch.
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
        devices: Processes, one on each.
        strategy: Strategy by which the GPUs share the work.
        precision: Lightning's name for it.
        batch_size: Per process.
        accumulate_grad_batches: Batches of an optimizer step.
        crop: Side of the images in pixels; ``None``: teacher pairs of their own size.
        parameters: Counts, of the whole model: ``transformer`` (its modulation included, adapters not), ``modulation`` (the
            blocks' ``norm*.linear``), ``norm_out`` (the last modulation), ``trainable``, ``autoencoder``, ``total``.
        held_bytes: Memory that is kept from step to step, by kind.
        phases: Phases in the order of the step.
        peak_bytes: The largest number of live bytes.
        peak_phase: The phase that it is in.
        peak: Parts of the peak, by kind; activations by the phase that made them.
        flops_per_step: Floating-point operations of an optimizer step, recomputation included.
        tflops: The stated throughput of a device, in 1e12 FLOPs a second.
        seconds_per_step: Seconds per step at that throughput.
        seconds_range: Seconds per step at 1.5 and at 0.5 times the throughput: those of a fast and of a slow device.
        steps_per_hour: Steps per hour at the stated throughput.
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
