"""Runs one training step of a module in Lightning's own trainer, on batches of the right shapes, and records it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fluxsr.data import SRBatch, SRDataModule
from fluxsr.flows import PairedTimes
from fluxsr.ledger import Ledger
from fluxsr.like_gpu import LikeDevice, like_device
from fluxsr.losses.network import FrozenNetwork
from fluxsr.models import FluxBackbone
from fluxsr.training import OneStepSR
from fluxsr.training.batches import step_generator
from fluxsr.training.callbacks import EMA

# Kinds of what lives from step to step.
BASE, BASE_LINEARS, MODULATION_LAYERS = "transformer", "transformer linears", "modulation"
TRAINED, FROZEN_ROLES, AUTOENCODER, NETWORKS, OTHERS = (
    "trained",
    "frozen roles",
    "autoencoder",
    "loss networks",
    "buffers",
)
GRADIENTS, OPTIMIZER, AVERAGE = "gradients", "optimizer", "ema"
# Phases of a step in the order in which they begin; OneStepSR announces the first four to the trainer's profiler.
PHASES = ("encode", "flow", "decode", "losses", "backward", "optimizer")
VALIDATION = "validation"  # after the step, all in one


@dataclass(frozen=True)
class Settings:
    """The part of the trainer's configuration that changes a step.

    Args:
        precision: Lightning's, for example ``bf16-mixed``.
        cuda: Runs as on a GPU; else as on a CPU.
        accumulate: Batches per optimizer step.
        gradient_clip_val: Largest norm of the gradient, as Lightning's argument.
        average: Whether an :class:`fluxsr.training.callbacks.EMA` runs.
    """

    precision: str = "32-true"
    cuda: bool = True
    accumulate: int = 1
    gradient_clip_val: float | None = None
    average: bool = False


def make_batch(module: OneStepSR, data: SRDataModule, device: str = "meta") -> SRBatch:
    """Return a training batch of the shapes that a data module serves, whose files need not exist."""
    if data.crop is None:
        raise ValueError("data.crop is null, so the images' size is not known: give --data.crop, in pixels")
    batch, side = data.batch_size, data.crop
    hr_image = torch.rand(batch, 3, side, side, device=device)
    lr_image = torch.rand(batch, 3, side // data.scale, side // data.scale, device=device)
    index = torch.arange(batch, device=device)
    if data.pairs is None or data.photos is not None:  # a mixture brings no latents
        return SRBatch(hr_image, lr_image, index)
    autoencoder: Any = module.autoencoder
    small = side // autoencoder.downsample
    latents = torch.randn(2, batch, autoencoder.latent_channels, small, small, device=device)
    return SRBatch(hr_image, lr_image, index, latents[0].clone(), latents[1].clone())


def make_validation_batch(data: SRDataModule, photo: tuple[int, int]) -> SRBatch | None:
    """Return a validation batch of the shapes that a data module serves; ``None`` where it validates on nothing.

    With ``val_crop`` it is a batch of such crops, else one whole photo of ``photo`` (height, width), cut as the module cuts it.
    """
    if data.val_photos is None:
        return None
    batch, sides = (1, photo) if data.val_crop is None else (data.batch_size, (data.val_crop, data.val_crop))
    if data.val_crop is None:
        multiple = data.val_multiple_of or data.scale
        sides = (sides[0] // multiple * multiple, sides[1] // multiple * multiple)
        if not all(sides):
            raise ValueError(
                f"a photo of {photo[1]}x{photo[0]} can't be cut to multiples of {multiple}: plan a larger one"
            )
    hr_image = torch.rand(batch, 3, *sides, device="meta")
    lr_image = torch.rand(batch, 3, *(side // data.scale for side in sides), device="meta")
    return SRBatch(hr_image, lr_image, torch.arange(batch, device="meta"))


def run_step(
    module: OneStepSR, batch: SRBatch, settings: Settings, ledger: Ledger, validation: SRBatch | None = None
) -> None:
    """Make one training step, as it is when training has been running for a while: with the optimizer's state.

    With accumulated batches it is the last one, whose gradients add to those that are there already. The module and the batch
    for one process are on the meta device, and so is one that is validated after the step. The ledger takes it all down.
    """
    strategy: Any = _Nowhere(device=batch.hr_image.device)
    callbacks: list[Callback] = [EMA()] if settings.average else []
    # As large, and without a gradient scaler, which wants a GPU.
    precision: Any = "bf16-mixed" if settings.precision in ("16", "16-mixed") else settings.precision
    if module.adversary is not None:
        module.adversary.warmup_steps = 0  # later it is heard
        module.adversary.accumulate_grad_batches = 1
    with quiet(), ExitStack() as stack:
        trainer = Trainer(
            accelerator="cpu", strategy=strategy, devices=1, precision=precision, max_steps=1, max_epochs=1,
            gradient_clip_val=settings.gradient_clip_val, num_sanity_val_steps=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, profiler=_Phases(ledger),
            callbacks=[_Bookkeeper(ledger, settings), *callbacks],
        )  # fmt: skip
        claim(module, ledger)
        for tensor in (value for value in batch if isinstance(value, torch.Tensor)):
            ledger.own(tensor, "batch")
        stack.enter_context(like_device(LikeDevice(settings.cuda)))
        module.seed = fullest_draw(module, len(batch.hr_image))
        stack.enter_context(ledger)
        one_batch: Any = [batch]
        photos: Any = None if validation is None else DataLoader([validation], batch_size=None)  # type: ignore[arg-type]
        trainer.fit(module, DataLoader(one_batch, batch_size=None), photos)


def claim(module: OneStepSR, ledger: Ledger) -> None:
    """Book every parameter and buffer that a module holds, by kind."""
    kinds = {id(p): NETWORKS for term in module.modules() if isinstance(term, FrozenNetwork) for p in term.parameters()}
    kinds |= {id(parameter): AUTOENCODER for parameter in module.get_submodule("autoencoder").parameters()}
    backbone = module.backbone
    base = backbone.transformer if isinstance(backbone, FluxBackbone) else backbone
    unquantized = backbone.family.unquantized if isinstance(backbone, FluxBackbone) else ()
    linears = {
        id(m.weight)
        for name, m in base.named_modules()
        if isinstance(m, nn.Linear) and name.removesuffix(".base_layer") not in unquantized
    }
    for name, parameter in base.named_parameters():
        if ".lora_" in name:
            kinds[id(parameter)] = FROZEN_ROLES
        elif isinstance(backbone, FluxBackbone) and backbone.family.is_block_modulation(name):
            kinds[id(parameter)] = MODULATION_LAYERS
        else:
            kinds[id(parameter)] = BASE_LINEARS if id(parameter) in linears else BASE
    kinds |= {id(parameter): TRAINED for parameter in module.trained.parameters().values()}
    for parameter in module.parameters():
        ledger.own(parameter, kinds.get(id(parameter), FROZEN_ROLES))
    for buffer in module.buffers():
        ledger.own(buffer, OTHERS)


def fullest_draw(module: OneStepSR, batch_size: int) -> int:
    """Return the seed whose first draw of times makes the dearest step: where rows differ, that with the most passes.

    A consistency row takes a pass of the teacher, one of the moving average, and, unless s is 0, a second state of the student.
    """
    passes = {}
    for seed in range(16):
        times = module.objective.sample_times(batch_size, generator=step_generator(seed, 0, "times"))
        passes[seed] = 0
        if isinstance(times, PairedTimes):
            consistency = ~times.flow_rows
            passes[seed] = int(2 * consistency.sum() + (consistency & (times.s > 0)).sum())
    return max(passes, key=passes.__getitem__)


class _Phases(Profiler):
    """Books what the module's own phases make: the trainer's profiler is where it announces them."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._outer: list[str] = []

    def start(self, action_name: str) -> None:
        """Begin a phase, if it is one."""
        if action_name in PHASES:
            self._outer.append(self._ledger.phase)
            self._ledger.phase = VALIDATION if self._outer[-1] == VALIDATION else action_name

    def stop(self, action_name: str) -> None:
        """Go back to the phase around it."""
        if action_name in PHASES:
            self._ledger.phase = self._outer.pop()


class _EightBit(torch.optim.Optimizer):
    """Stands in for an 8-bit Adam, whose kernels need a GPU: two moments of a byte, a float32 scale for every 256 of each."""

    def __init__(self, param_groups: Any) -> None:
        super().__init__(param_groups, {})
        for group in self.param_groups:
            for p in group["params"]:
                bytes_ = 2 * p.numel() + 8 * (p.numel() // 256 + 1)
                self.state[p]["moments"] = p.new_empty(bytes_, dtype=torch.uint8)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Run the closure and leave the weights alone."""
        return None if closure is None else closure()


class _Nowhere(SingleDeviceStrategy):
    """The meta device: no accelerator's, and what is there can't be brought back at the end."""

    def setup_environment(self) -> None:
        """Leave the device alone."""

    def teardown(self) -> None:
        """Leave everything where it is."""


class _Bookkeeper(Callback):
    """Says what tensors are and when the backward pass and the optimizer's step begin; makes the optimizer's state first."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self.ledger = ledger
        self.settings = settings

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring training to where it has been running for a while."""
        module: Any = pl_module
        trainer.optimizers = [
            _EightBit(optimizer.param_groups) if "8bit" in type(optimizer).__name__ else optimizer
            for optimizer in trainer.optimizers
        ]
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if self.settings.cuda and group.get("foreach", ...) is None and not group.get("fused"):
                    group["foreach"] = True  # PyTorch's choice on a GPU
            self._make_state(optimizer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            for tensor in callback.average.values() if isinstance(callback, EMA) else ():
                self.ledger.own(tensor, AVERAGE)
        for parameter in module.trained.parameters().values():
            parameter.register_post_accumulate_grad_hook(self._claim_gradient)
        self.ledger.reset()
        self.ledger.phase = "losses"  # what none of the methods is: their sum, and an adversary's

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Refuse questions about values from here on."""
        self.ledger.answers = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Answer the trainer's own questions again: it reads numbers for logs."""
        self.ledger.answers = True

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Begin the phase; the last one of several batches adds to the gradients of those before it."""
        self._accumulated(parameter for parameter in pl_module.parameters() if parameter.requires_grad)
        self.ledger.phase = "backward"

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the last phase: clipping, the optimizer's step and what follows it."""
        self.ledger.phase = "optimizer"

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Count the images, which were not there during the step."""
        for tensor in (value for value in batch if isinstance(value, Tensor)):
            self.ledger.own(tensor, "batch")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Book the validation, in which metrics ask whether anything is not a number: nothing is."""
        self.ledger.phase, self.ledger.answer = VALIDATION, 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Book nothing more as the validation's."""
        self.ledger.phase, self.ledger.answer = "optimizer", 1

    def _make_state(self, optimizer: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # a real module must not move
        type(optimizer).step(optimizer)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    self.ledger.own(value, OPTIMIZER)
        for parameter in parameters:
            parameter.grad = None
        self._accumulated(parameters)

    def _accumulated(self, parameters: Iterable[Tensor]) -> None:
        """Put zeros where the gradients of earlier batches would be."""
        for parameter in parameters:
            if self.settings.accumulate > 1 and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
                self.ledger.own(parameter.grad, GRADIENTS)

    def _claim_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.ledger.own(parameter.grad, GRADIENTS)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's remarks on a trainer that nobody sees from the user."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric", "pytorch.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
