"""What is planned, and what a plan says."""

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
        module: what is trained.
        data: what it is trained on; only its plain arguments are read.
        settings: of the trainer.
        max_steps: optimizer steps of the whole run; ``None``: open.
        strategy: as the trainer's configuration names it.
        options: the configuration as plain values.
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
        phase: its name, for example ``forward``.
        peak_bytes: per process.
        flops: of one optimizer step.
    """

    phase: str
    peak_bytes: int
    flops: float


@dataclass
class Validation:
    """The largest number of live bytes while one validation batch is restored and measured, in the middle of a training.

    Attributes:
        height: Of its images in pixels.
        width: Of its images in pixels.
        batch_size: Its images.
        tile: The module's; ``None``: whole images.
        peak_bytes: Per process, all that is held included.
        peak: What it is made of, by kind.
        flops: Of the batch.
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
    """What one process takes for one training step; bytes are of tensors, per process.

    Attributes:
        devices: processes, one on each.
        strategy: how they share the work.
        precision: Lightning's name for it.
        batch_size: per process.
        accumulate_grad_batches: batches of an optimizer step.
        crop: side of the images in pixels; ``None``: teacher pairs of their own size.
        parameters: counts, of the whole model: ``transformer`` (its modulation included, adapters not), ``modulation`` (the
            blocks' ``norm*.linear``), ``norm_out`` (the last modulation), ``trainable``, ``autoencoder``, ``total``.
        held_bytes: what lives from step to step, by kind.
        phases: in the order of the step.
        peak_bytes: the largest number of live bytes.
        peak_phase: the phase that it is in.
        peak: what it is made of, by kind; activations by the phase that made them.
        flops_per_step: of an optimizer step, recomputation included.
        tflops: the stated throughput of a device, in 1e12 FLOPs a second.
        seconds_per_step: at that throughput.
        seconds_range: from half as much throughput again down to half of it: the seconds of a fast and of a slow device.
        steps_per_hour: at the stated throughput.
        hours: that the whole training takes; ``None`` where its length is not set.
        checkpoint_bytes: of a checkpoint file: trained weights, moving averages and the optimizer's state.
        host_shared_bytes: of frozen weights as their files are mapped into host memory while they go to the devices: once for
            all processes of a machine.
        host_bytes: of host memory for each process on top: what is trained, and a checkpoint while it is written.
        validation: of a validation batch; ``None`` where the configuration has none.
        notes: what the plan assumes.
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
