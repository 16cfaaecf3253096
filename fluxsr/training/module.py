"""Composes a backbone, an autoencoder, an objective and loss terms in one LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.strategies import DDPStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fluxsr.flows import FlowObjective, FlowOutput, LatentPair, latent_mse
from fluxsr.losses._checks import FirstBatch
from fluxsr.models import FeatureTap, FluxBackbone, StudentRecord, tabulate_modulation
from fluxsr.models.architectures import license_of
from fluxsr.protocols import Autoencoder, VelocityModel
from fluxsr.training.adversary import Adversary
from fluxsr.training.alternation import alternate
from fluxsr.training.batches import as_batch, completed, rows_of
from fluxsr.training.checkpoints import RandomStates, frozen_names, leave_frozen_out
from fluxsr.training.checks import (
    check_arguments,
    check_grid,
    check_pairs,
    check_precision,
    check_same_weights,
    check_strategy,
)
from fluxsr.training.finite import FiniteGuard
from fluxsr.training.in_step import InStep, average_whole, clip_norm, shard
from fluxsr.training.lr_time import settle, take_lr_time
from fluxsr.training.optimizers import student_optimizer
from fluxsr.training.randomness import own_rows, row_noise, step_generator
from fluxsr.training.restoration import restore
from fluxsr.training.resuming import KEY, check_checkpoint, names_of, take_over
from fluxsr.training.roles import STUDENT, Roles
from fluxsr.training.strategies import FSDP2Strategy
from fluxsr.training.terms import FLOW, FeatureTerm, LossTerm, OnImages, StepOutputs, gradient_norms
from fluxsr.training.validation import Means, evaluate


class OneStepSR(LightningModule):
    """Trains a velocity model to super-resolve in one step; every part is an argument.

    One training step, each arrow a short method that a subclass may override::

        batch -> encode -> LatentPair -> flow -> FlowOutput -> losses -> weighted sum -> one optimizer step

    Args:
        backbone: A velocity model ``(xt, t) -> v``, usually :class:`fluxsr.models.FluxBackbone`.
        autoencoder: Network between images in ``[0, 1]`` and normalized latents. It is frozen, except for an adapter of its
            encoder (``load_autoencoder(encoder_lora_rank=...)``).
        objective: Any :class:`fluxsr.flows.FlowObjective`.
        losses: Further terms by name; each is logged as ``train/<name>``.
        flow_weight: Multiplier of the objective's own loss; 0 trains on the other terms only (an ablation).
        distance: Image loss ``(a, b) -> scalar`` that the objective measures decoded latents with, for example FlowSR's
            :class:`fluxsr.losses.MSELPIPSLoss`. ``None``: the mean squared error of the latents, which is FluxSR's.
        teacher: Frozen velocity model for an objective that needs one (:class:`fluxsr.flows.ConsistencySRFlow`), if it is
            not an adapter of the backbone (``load_flux(teacher_lora=...)``).
        adversary: Switches an adversarial term on; without it optimization is Lightning's automatic one.
        optimizer: Makes the optimizer from the trainable parameters; AdamW at 5e-5 by default (ours: the papers
            publish none).
        scheduler: Makes a learning-rate scheduler from the optimizer, stepped every step.
        val_losses: Image losses that validation and test log as ``val/<name>`` and ``test/<name>``.
        scale: Magnification, the factor of :meth:`forward`.
        tile: Side in image pixels of the tiles that validation, test and prediction work in; ``None``: whole images.
        seed: Seed of times, noise and crops.
        log_gradient_norms: Steps between two logs of every term's gradient norm; 0: never. Each log costs a backward pass
            per term.
        modulation_table: Replace the backbone's frozen modulation layers, 27 % of FLUX, by a table of their outputs. The
            objective's times must come from a grid (``time_sampler=GridTimes(16)``). See
            :func:`fluxsr.models.tabulate_modulation`.
        check_lr_time: Before a new run, measure T_L on the data and warn if the given one is far from it. (With
            ``lr_time: auto`` it is measured anyway.)

    Raises:
        ValueError: If a loss is called ``flow``, ``loss``, ``adversarial`` or ``discriminator``, a wanted teacher is missing,
            nothing is trainable, or a number is out of range.

    Logs:
        ``train/loss`` (the weighted total, mean over processes), ``train/flow``, ``train/<name>``,
        ``train/grad_norm/<name>``, ``train/adversarial`` and ``train/discriminator``; ``val/psnr_y`` in dB (BT.601 luma),
        ``val/psnr_y_bicubic``, ``val/<name>``; ``val/flow`` for a teacher.
    """

    def __init__(
        self,
        backbone: nn.Module,
        autoencoder: nn.Module,
        objective: FlowObjective,
        losses: dict[str, LossTerm] | None = None,
        flow_weight: float = 1.0,
        distance: nn.Module | None = None,
        teacher: nn.Module | None = None,
        adversary: Adversary | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        val_losses: dict[str, nn.Module] | None = None,
        scale: int = 4,
        tile: int | None = None,
        seed: int = 0,
        log_gradient_norms: int = 0,
        modulation_table: bool = False,
        check_lr_time: bool = True,
    ) -> None:
        super().__init__()
        check_arguments(losses or {}, flow_weight, scale)
        self.backbone = backbone
        # An adapter of the encoder is trained with the student; all else of an autoencoder is frozen.
        self.adapted_encoder = getattr(autoencoder, "encoder_lora_rank", None) is not None
        self.autoencoder = cast(Autoencoder, autoencoder.requires_grad_(self.adapted_encoder))
        self.objective = objective
        self.roles = Roles(backbone, objective.roles, teacher)
        self.check_lr_time = check_lr_time
        self._table_wanted = modulation_table
        self.build_table()
        self.adversary = adversary
        if adversary is not None:
            adversary.judge_with(backbone)
            self.automatic_optimization = False
        self.losses = nn.ModuleDict(losses or {})
        self.losses.requires_grad_(False)
        self.flow_weight = flow_weight
        self.distance = None if distance is None else distance.requires_grad_(False)
        self.val_losses = nn.ModuleDict(val_losses or {}).requires_grad_(False)
        self.means = Means(self.val_losses)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scale = scale
        self.tile = tile
        self.seed = seed
        self.log_gradient_norms = log_gradient_norms
        # Checkpoints, and state_dict(), hold what is trained; the frozen rest is loaded from its own source.
        self.strict_loading = False
        self.register_state_dict_post_hook(leave_frozen_out)
        self._in_step: InStep | None = None
        self._guard = FiniteGuard()
        self._first_batch = FirstBatch()
        taps = any(isinstance(term, FeatureTerm) for term in self.losses.values())
        self._tap = FeatureTap(backbone) if taps else None

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that lets a resumed run draw the same random numbers as an uninterrupted one."""
        return [RandomStates()]

    def setup(self, stage: str) -> None:
        """Refuse a precision that would go wrong silently, and settle T_L, before anything is built on it."""
        check_precision(self)
        settle(self, stage)
        self.build_table()

    def build_table(self) -> None:
        """Replace the modulation layers by a table, once, as soon as the objective's times are known."""
        if not self._table_wanted or not self.objective.is_settled:
            return
        times = check_grid(self.objective)
        for model in (self.backbone, *self.roles.models.values()):
            tabulate_modulation(model, times)
        self._table_wanted = False

    def configure_model(self) -> None:
        """Shard the velocity models over the processes, where the strategy is :class:`fluxsr.training.FSDP2Strategy`.

        Raises:
            ValueError: If a sharding strategy is used with quantized weights, or with anything else that it does not support.
        """
        if self._trainer is None:  # OneStepSR.load_from_checkpoint
            return
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            check_same_weights(self, strategy)
            # DDP would broadcast the frozen base, gigabytes of it, and choke on quantized weights: it is the same by
            # construction, which has just been checked. PyTorch reads this name off the module that it wraps.
            self._ddp_params_and_buffers_to_ignore = sorted(frozen_names(self))
        check_strategy(strategy, self)
        if isinstance(strategy, FSDP2Strategy) and self._in_step is None:
            self._in_step = shard(self, strategy)

    def on_fit_start(self) -> None:
        """Refuse what would go wrong silently."""
        check_pairs(self)

    # ---- one training step, arrow by arrow -------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the weighted total of all terms that are due."""
        given, step = batch, self.trainer.fit_loop.total_batch_idx
        batch = as_batch(given)
        if batch is not given:  # our own data modules serve [0, 1]
            self._first_batch(batch.lr_image, batch.hr_image)
        with self.phase("encode"):
            pair = self.encode(batch, step)
        with self.phase("flow"):
            output, passes = self.flow(pair, step)
        crops = self.generator(step, "crop")
        outputs = StepOutputs(output, batch.hr_image, self.decode, self.autoencoder.downsample, passes, crops)
        with self.phase("losses"):
            terms = self.compute_terms(outputs)
        if self.log_gradient_norms and step % self.log_gradient_norms == 0:
            norms = gradient_norms(terms, self.trainable_state().values())
            self.log_dict({f"train/grad_norm/{name}": norm for name, norm in norms.items()})
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        logs = {name: value.detach() for name, (_, value) in terms.items()} | output.logs
        self._guard.watch(self.global_step, {**logs, "loss": total}, self.trainer.strategy)
        if self.adversary is not None:
            total, adversarial_logs = alternate(self, self.adversary, total, outputs, batch_idx)
            logs |= adversarial_logs
        batch_size = len(batch.hr_image)
        self.log_dict({f"train/{name}": value for name, value in logs.items()}, batch_size=batch_size)
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True, batch_size=batch_size)
        return total

    def encode(self, batch: Any, step: int = 0) -> LatentPair:
        """Return the latents of a batch; what a row does not bring (HR latents, noise) is made here.

        The LR image is resized to the target size (bicubic) and then encoded, so ``lr`` has the shape of ``hr``. It is left out
        where the objective restores from noise.
        """
        count, rows = len(batch.hr_image), getattr(batch, "pair_rows", None)
        # Targets stay in the frozen encoder's space, where the teacher's own latents are.
        encode_target = getattr(self.autoencoder, "encode_target", self.autoencoder.encode)
        with torch.no_grad():
            known = None if batch.hr_latents is None else batch.hr_latents.float()
            hr = completed(known, rows, count, lambda those: encode_target(rows_of(batch.hr_image, those)))
        lr = None
        if not self.objective.starts_from_noise:
            with torch.set_grad_enabled(self.adapted_encoder and torch.is_grad_enabled()):
                lr = self.autoencoder.encode(self.enlarge(batch.lr_image, batch.hr_image.shape[-2:]))
        shape, place = hr.shape[1:], self._place
        noise = completed(batch.noise, rows, count, lambda those: row_noise(those, shape, self.seed, step, *place))
        return LatentPair(hr, lr, noise.to(hr.device, hr.dtype, non_blocking=True), batch.hr_image)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents ``(B, C, h, w)``; the gradient passes through."""
        with self.phase("decode"):
            return self.autoencoder.decode(latents)

    def flow(self, pair: LatentPair, step: int = 0) -> tuple[FlowOutput, list[list[Tensor]]]:
        """Return the objective's output, and the features of each velocity call if a term needs them."""
        rank, world = self._place
        # Drawn for the global batch, of which each process takes its rows: the times of a sample do not depend on how many
        # processes train.
        drawn = self.objective.sample_times(len(pair.hr) * world, generator=self.generator(step, "times"))
        # They stay on the CPU, where objectives check them and choose rows by them without waiting for a GPU.
        times = apply_to_collection(drawn, Tensor, lambda rows: own_rows(rows, rank, world))
        passes: list[list[Tensor]] = []
        velocity = self.velocity() if self._tap is None else self._tap.recording(self.velocity(), passes)
        others = {role.name: self.velocity(role.name) for role in self.objective.roles}
        distance = latent_mse if self.distance is None else OnImages(self.distance, self.decode)
        output = self.objective(velocity, pair, times=times, distance=distance, **others)
        if self._in_step is not None:
            self._in_step.finish()
        return output, passes

    def velocity(self, role: str = STUDENT) -> VelocityModel:
        """Return the student, or the velocity model of a role, as every process must call it.

        Under a strategy that shards weights, the processes make each other's calls.
        """
        if self._in_step is not None:
            return self._in_step.velocity(role)
        return self.backbone if role == STUDENT else self.roles.velocity(role)

    def compute_terms(self, outputs: StepOutputs) -> dict[str, tuple[float, Tensor]]:
        """Return ``(weight, value)`` of the objective and of every term that is due, by name."""
        terms = {FLOW: (self.flow_weight, outputs.flow.loss)}
        for name, module in self.losses.items():
            term = cast(LossTerm, module)
            if term.due(self.global_step):
                terms[name] = (term.weight, term(outputs))
        return terms

    def on_after_backward(self) -> None:
        """Under a strategy that shards weights, average the gradients of those that are not sharded."""
        if self._in_step is not None:
            average_whole(self.trainable_state().values())

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, or, under a strategy that shards weights, the norm of sharded and whole ones together."""
        if self._in_step is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_norm((one for group in optimizer.param_groups for one in group["params"]), gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make Lightning's automatic step, and what follows every step."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """Let the objective's moving averages follow the student."""
        self.roles.follow()

    def configure_optimizers(self) -> Any:
        """Return the optimizer of all trainable parameters with its scheduler, and the discriminator's if there is one.

        Raises:
            ValueError: If nothing is trainable.
        """
        heads = [] if self.adversary is None else list(self.adversary.heads())
        student = student_optimizer(self.parameters(), heads, self.make_optimizer, self.make_scheduler)
        if self.adversary is None:
            return student
        return [student, {"optimizer": self.adversary.make_optimizer(heads)}]

    # ---- restoration -----------------------------------------------------------------------------------------

    def forward(self, lr_image: Tensor, steps: int = 1) -> Tensor:
        """Upscale LR images ``(B, 3, h, w)`` in ``[0, 1]`` to ``(B, 3, scale h, scale w)``, clamped to ``[0, 1]``."""
        height, width = lr_image.shape[-2] * self.scale, lr_image.shape[-1] * self.scale
        return self.restore_image(self.enlarge(lr_image, (height, width)), steps)

    def restore_image(self, image: Tensor, steps: int = 1) -> Tensor:
        """Restore an image that already has its final size; any size, padded inside to what the model takes.

        With ``tile``, encoder, model and decoder work tile by tile: memory is that of a tile, whatever the photo's size.
        """
        return restore(self, image, steps)

    @staticmethod
    def enlarge(image: Tensor, size: Iterable[int]) -> Tensor:
        """Resize to ``size`` (height, width): bicubic, clamped to ``[0, 1]``; where restoration starts, and its baseline."""
        return interpolate(image, size=tuple(size), mode="bicubic", align_corners=False).clamp(0, 1)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Log PSNR-Y and the validation losses of the restored images, or a teacher's flow loss.

        Returns the images ``sr_image``, ``hr_image`` and ``bicubic`` for callbacks; nothing for a teacher.
        """
        return evaluate(self, batch, batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """As :meth:`validation_step`, under ``test/``."""
        return evaluate(self, batch, batch_idx, "test")

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """After the last batch of this process, make the passes that other processes still make."""
        if self._in_step is not None:
            self._in_step.end_loop(self.trainer, batch_idx, dataloader_idx)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the upscaled images of a batch with ``lr_image``."""
        return self(as_batch(batch).lr_image)

    # ---- checkpoints hold what is trained ----------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to write weights or go past losses that are not finite.

        Raises:
            ValueError: Naming the step and the terms.
        """
        self.check_finite()
        checkpoint[KEY] = {**names_of(self.trainer.optimizers), "student": self.record.values()}

    def check_finite(self) -> None:
        """Look at the losses since the last look and at the trained weights. Every process must call it.

        Raises:
            ValueError: If something is NaN or infinite, naming the step and the terms.
        """
        self._guard.check(self.trainer.strategy, self.trainable_state().values(), self.global_step)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the trainable parameters by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not hold exactly what is trained here.

        Raises:
            ValueError: Naming the first weights that are missing or unknown.
        """
        check_checkpoint(self, checkpoint)
        take_lr_time(self, checkpoint["state_dict"])  # outside of a Trainer nothing has settled it yet
        self.build_table()

    def on_train_start(self) -> None:
        """Apply the configuration to the optimizer of a resumed run."""
        if self.trainer.ckpt_path is not None:
            take_over(self)

    def checkpointed(self) -> set[str]:
        """Return the names of the weights that a checkpoint holds: what is trained, and its moving average."""
        averaged = {name for name, _ in self.named_parameters() if self.roles.is_average(name)}
        return averaged | set(self.trainable_state())

    @property
    def record(self) -> StudentRecord:
        """What this training makes, besides its weights; the backbone says its own part, if it is one of ours."""
        own = self.backbone.record if isinstance(self.backbone, FluxBackbone) else StudentRecord()
        described: Any = self.autoencoder
        return replace(
            own,
            objective=type(self.objective).__name__,
            from_noise=self.objective.starts_from_noise,
            start_time=self.objective.start_time,
            window=self.tile,
            scale=self.scale,
            autoencoder=described.fingerprint() if hasattr(described, "fingerprint") else {},
            autoencoder_name=getattr(described, "name", ""),
            period=2 * self.autoencoder.downsample,
            license=license_of(own.base).name,
            steps=self.global_step,
        )

    # ---- helpers ---------------------------------------------------------------------------------------------

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Return a context that the trainer's profiler books under ``name``: ``Trainer(profiler="simple")`` lists them."""
        trainer: Any = self._trainer
        return nullcontext() if trainer is None else trainer.profiler.profile(name)

    def generator(self, step: int, purpose: str) -> torch.Generator:
        """Return the generator of one step for one purpose, the same on every process."""
        return step_generator(self.seed, step, purpose)

    @property
    def _place(self) -> tuple[int, int]:
        """This process's rank, and the number of processes."""
        return (self.global_rank, self._trainer.world_size) if self._trainer is not None else (0, 1)
