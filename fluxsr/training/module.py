"""Composes a backbone, an autoencoder, an objective and loss terms in one LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.functional import pad

from fluxsr.data import SRBatch, SRDataModule
from fluxsr.flows import FlowObjective, FlowOutput, FlowTrajectoryDistillation, LatentPair, latent_mse
from fluxsr.losses._checks import FirstBatch
from fluxsr.models import (
    FeatureTap,
    FluxBackbone,
    LatentAutoencoder,
    PixelAutoencoder,
    StudentRecord,
    tabulate_modulation,
)
from fluxsr.models.known_names import license_of
from fluxsr.models.tiling import TiledVelocity, in_tiles
from fluxsr.models.weight_files import public_name, unwrapped, weights_digest
from fluxsr.protocols import Autoencoder, VelocityModel
from fluxsr.training.adversary import ADVERSARIAL, Adversary
from fluxsr.training.batches import as_batch, enlarge, latents_of, step_generator
from fluxsr.training.checkpoints import (
    KEY,
    RandomStates,
    check_fits,
    check_optimizers,
    lr_time_in,
    resumed_from,
    take_over,
)
from fluxsr.training.checks import FiniteGuard, check_pairs, check_precision, check_same_weights
from fluxsr.training.lr_time import FACTOR, measure_lr_time, samples_of
from fluxsr.training.optimizers import student_optimizer
from fluxsr.training.roles import STUDENT, Roles
from fluxsr.training.strategies import FSDP2Strategy, InStep, average_whole, check_strategy, clip_norm, shard_backbone
from fluxsr.training.terms import FLOW, FeatureTerm, LossTerm, OnImages, StepOutputs, gradient_norms
from fluxsr.training.trained import OBJECTIVE, Trained
from fluxsr.training.validation import Means, psnr_y, rows_counted_here

SCALE = 4  # where neither the data nor an argument says one


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
        scale: Magnification, the factor of :meth:`forward`. The data state it: of :class:`fluxsr.data.SRDataModule`, or the
            sizes of a training's first batch, are taken, and another number here is refused. Without data it is 4.
        tile: Side in image pixels of the tiles that validation, test and prediction work in; ``None``: whole images.
        seed: Seed of times, noise and crops.
        log_gradient_norms: Steps between two logs of every term's gradient norm; 0: never. Each log costs a backward pass
            per term.
        modulation_table: Replace the backbone's frozen modulation layers, 27 % of FLUX, by a table of their outputs. The
            objective's times must come from a grid (``time_sampler=GridTimes(16)``). See
            :func:`fluxsr.models.tabulate_modulation`.
        check_lr_time: Before a new run, measure T_L on the data and warn if the given one is far from it. (With
            ``lr_time: auto`` it is measured anyway, unless the run goes on from a checkpoint, which holds it.)

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
        scale: int | None = None,
        tile: int | None = None,
        seed: int = 0,
        log_gradient_norms: int = 0,
        modulation_table: bool = False,
        check_lr_time: bool = True,
    ) -> None:
        super().__init__()
        taken = {FLOW, "loss", ADVERSARIAL, "discriminator"} & set(losses or {})
        if taken:
            raise ValueError(f"a loss can't be named {taken.pop()!r}: that name is logged for the module's own terms")
        if flow_weight < 0:
            raise ValueError(f"flow_weight must not be negative, got {flow_weight}")
        if scale is not None and scale < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        self.backbone = backbone
        # An adapter of the encoder is trained with the student; all else of an autoencoder is frozen.
        self.adapted_encoder = isinstance(autoencoder, LatentAutoencoder) and autoencoder.encoder_lora_rank is not None
        self.autoencoder = cast(Autoencoder, autoencoder.requires_grad_(self.adapted_encoder))
        self.objective = objective
        self.roles = Roles(backbone, objective.roles, teacher)
        self.check_lr_time = check_lr_time
        self._table_wanted, self._tabulated = modulation_table, False
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
        self.means = Means()
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scale = SCALE if scale is None else scale
        self._given_scale = scale
        self.tile = tile
        self.seed = seed
        self.log_gradient_norms = log_gradient_norms
        # Checkpoints, and state_dict(), hold what is trained; the frozen rest is loaded from its own source.
        self.strict_loading = False
        self.trained = Trained(self, self.roles.is_average)
        # In partials, since PyTorch marks its hooks, and bound methods take no mark.
        self.register_state_dict_post_hook(partial(self.trained.leave_frozen_out))
        self.register_load_state_dict_pre_hook(partial(self.trained.take_names))
        self._in_step: InStep | None = None
        self._guard = FiniteGuard()
        self._first_batch = FirstBatch()
        taps = any(isinstance(term, FeatureTerm) for term in self.losses.values())
        self._tap = FeatureTap(backbone) if taps else None

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that lets a resumed run draw the same random numbers as an uninterrupted one."""
        return [RandomStates()]

    def setup(self, stage: str) -> None:
        """Refuse what would go wrong silently, and settle scale and T_L, before anything is built on them."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, SRDataModule):
            self.follow_scale(data.scale)
            self._given_scale = data.scale
        if stage == "fit":
            check_precision(str(self.trainer.precision), self.trained.parameters(), self.adversary is not None)
        if isinstance(self.objective, FlowTrajectoryDistillation):
            self.settle_lr_time(self.objective, stage)
        self.build_table()

    def follow_scale(self, scale: int) -> None:
        """Take the data's magnification; raise ValueError if the module was given another one."""
        if self._given_scale not in (None, scale):
            raise ValueError(
                f"the model's scale is {self._given_scale} and the data's {scale}: state it once, in the data (data.scale)"
            )
        self.scale = scale

    def settle_lr_time(self, objective: FlowTrajectoryDistillation, stage: str) -> None:
        """Give the objective its T_L where it is ``auto``, and compare a given one with the data. Every process calls it.

        Any work with a checkpoint takes T_L from there. A new run measures it, the same on all processes.
        """
        if (path := resumed_from()) is not None:
            if (saved := lr_time_in(path)) is not None:
                if objective.is_settled and objective.lr_time != saved:
                    said = f"lr_time is {objective.lr_time:g} here and {saved:g} in the checkpoint"
                    if self._tabulated:
                        raise ValueError(f"{said}, and the modulation table has the former: give lr_time {saved:g}")
                    rank_zero_warn(f"{said}, which rules")
                objective.lr_time = saved
        elif stage == "fit" and (self.check_lr_time or not objective.is_settled):
            strategy = self.trainer.strategy
            device = strategy.root_device
            self.autoencoder.to(device)  # type: ignore[attr-defined]  # where the Trainer is about to move it anyway
            samples = samples_of(self.trainer.fit_loop._data_source)
            batches = (self.transfer_batch_to_device(one, device, 0) for one in samples)
            try:
                found = measure_lr_time(self.encode, batches, objective.rule, self.seed)
            except ValueError as error:
                if objective.is_settled:
                    return
                raise ValueError(
                    f"lr_time can't be measured: {error}; or give a number, 0.5 for FLUX's latents"
                ) from error
            if not objective.is_settled:  # all see the same samples, unless the data are a stream
                objective.lr_time = strategy.broadcast(found).lr_time
                rank_zero_info(f"measured {found}")
            elif not 1 / FACTOR <= objective.lr_time / found.lr_time <= FACTOR:
                rank_zero_warn(
                    f"lr_time is {objective.lr_time:g}, and this data asks for {found.lr_time:.2f}, by the rule "
                    f"{objective.rule} on {len(found.per_image)} images. Set lr_time: auto to take that"
                )

    def build_table(self) -> None:
        """Replace the modulation layers by a table, once, as soon as the objective's times are known."""
        if not self._table_wanted or not self.objective.is_settled:
            return
        times = self.objective.time_grid()
        if times is None:
            raise ValueError(
                "modulation_table needs an objective whose times are on a grid: give it time_sampler: fluxsr.flows.GridTimes"
            )
        for model in (self.backbone, *self.roles.models.values()):
            tabulate_modulation(model, times)
        self._table_wanted, self._tabulated = False, True

    def configure_model(self) -> None:
        """Shard the velocity models over the processes, where the strategy is :class:`fluxsr.training.FSDP2Strategy`."""
        if self._trainer is None:  # OneStepSR.load_from_checkpoint
            return
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            frozen = self.trained.frozen()
            check_same_weights(weights_digest(self, frozen), strategy)
            # DDP would broadcast the frozen base, gigabytes of it, and choke on quantized weights: it is the same by
            # construction, which has just been checked. PyTorch reads this name off the module that it wraps.
            self._ddp_params_and_buffers_to_ignore = sorted(frozen)
        backbone = self.backbone
        check_strategy(strategy, backbone.quantization if isinstance(backbone, FluxBackbone) else None)
        if isinstance(strategy, FSDP2Strategy) and self._in_step is None:
            for model in (backbone, *self.roles.models.values()):
                shard_backbone(model, strategy.device_mesh["data_parallel"])
            others = {role.name: self.roles.velocity(role.name) for role in self.objective.roles}
            channels, start_time = self.autoencoder.latent_channels, self.objective.start_time
            self._in_step = InStep({STUDENT: backbone, **others}, channels, start_time, strategy.root_device)

    def on_fit_start(self) -> None:
        """Refuse teacher pairs of another autoencoder."""
        data, autoencoder = self.trainer.datamodule, self.autoencoder  # type: ignore[attr-defined]
        if isinstance(data, SRDataModule) and isinstance(autoencoder, PixelAutoencoder | LatentAutoencoder):
            check_pairs(data.pairs_fingerprint or {}, autoencoder.fingerprint())

    # ---- one training step, arrow by arrow -------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the weighted total of all terms that are due."""
        given, step = batch, self.trainer.fit_loop.total_batch_idx
        batch = as_batch(given)
        if batch_idx == 0:
            self.follow_scale(batch.hr_image.shape[-1] // batch.lr_image.shape[-1])
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
            norms = gradient_norms(terms, self.trained.parameters().values())
            self.log_dict({f"train/grad_norm/{name}": norm for name, norm in norms.items()})
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        logs = {name: value.detach() for name, (_, value) in terms.items()} | output.logs
        self._guard.watch(self.global_step, {**logs, "loss": total}, self.trainer.strategy)
        if self.adversary is not None:
            total, adversarial_logs = self._alternate(self.adversary, total, outputs, batch_idx)
            logs |= adversarial_logs
        batch_size = len(batch.hr_image)
        self.log_dict({f"train/{name}": value for name, value in logs.items()}, batch_size=batch_size)
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True, batch_size=batch_size)
        return total

    def encode(self, batch: SRBatch, step: int = 0) -> LatentPair:
        """Return the latents of a batch; what a row does not bring (HR latents, noise) is made here.

        The LR image is resized to the target size (bicubic) and then encoded, so ``lr`` has the shape of ``hr``. It is left out
        where the objective restores from noise.
        """
        rank, world = self._place
        with torch.set_grad_enabled(self.adapted_encoder and torch.is_grad_enabled()):
            return latents_of(
                batch,
                self.autoencoder,
                not self.objective.starts_from_noise,
                lambda row: self.generator(step, f"noise of row {rank + row * world}"),
            )

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
        times = apply_to_collection(drawn, Tensor, lambda rows: rows[rank::world])
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
            average_whole(self.trained.parameters().values())

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
        self.roles.follow()

    def _alternate(
        self, adversary: Adversary, others: Tensor, outputs: StepOutputs, batch_idx: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Step the student, then the discriminator, which automatic optimization can't; return the total and what to log."""
        student: Any = self.optimizers()[0]  # type: ignore[index]
        # Stepped as it is: Lightning counts every step of a wrapped optimizer, and max_steps would end at half of them.
        discriminator = self.trainer.optimizers[1]
        due = (batch_idx + 1) % adversary.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        total, judged, logs = adversary.losses(others, outputs, self.global_step)
        for optimizer, loss in ((student, total), (discriminator, judged)):
            self.manual_backward(loss / adversary.accumulate_grad_batches)
            if due:
                if adversary.gradient_clip_val is not None:
                    self.configure_gradient_clipping(optimizer, adversary.gradient_clip_val, "norm")
                optimizer.step()
                optimizer.zero_grad()
        if due:
            scheduler: Any = self.lr_schedulers()
            if scheduler is not None:
                scheduler.step()
            self.roles.follow()
        return total, logs

    def configure_optimizers(self) -> Any:
        """Return the optimizer of all trainable parameters with its scheduler, and the discriminator's if there is one."""
        heads = [] if self.adversary is None else list(self.adversary.heads())
        student = student_optimizer(self.trained.begin().values(), heads, self.make_optimizer, self.make_scheduler)
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
        side = self.autoencoder.downsample
        height, width = image.shape[-2:]
        padded = pad(image, (0, -width % (2 * side), 0, -height % (2 * side)), mode="replicate")
        tile = max(padded.shape[-2:]) // side if self.tile is None else max(2, self.tile // side // 2 * 2)
        overlap = tile // 4
        latents = in_tiles(self.autoencoder.encode, padded, tile, overlap, reads=side)
        velocity = TiledVelocity(self.velocity(), tile + tile % 2, overlap)
        latents = self.objective.restore(velocity, latents, steps)
        return in_tiles(self.decode, latents, tile, overlap, writes=side)[..., :height, :width].clamp(0, 1)

    enlarge = staticmethod(enlarge)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log PSNR-Y and the validation losses of the restored images, or a teacher's flow loss; of each data loader apart.

        Returns the images ``sr_image``, ``hr_image`` and ``bicubic`` for callbacks; nothing for a teacher.
        """
        return self._evaluate(batch, batch_idx, "val", dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """As :meth:`validation_step`, under ``test/``."""
        return self._evaluate(batch, batch_idx, "test", dataloader_idx)

    def _evaluate(self, batch: Any, batch_idx: int, stage: str, loader: int) -> dict[str, Tensor]:
        batch = as_batch(batch)
        rows = rows_counted_here(self.trainer, stage, batch_idx, len(batch.hr_image), loader)
        images: dict[str, Tensor] = {}
        if self.objective.starts_from_noise:
            values = {FLOW: self.flow(self.encode(batch, batch_idx), batch_idx)[0].loss}
        else:
            bicubic = self.enlarge(batch.lr_image, batch.hr_image.shape[-2:])
            images = {"sr_image": self.restore_image(bicubic), "hr_image": batch.hr_image, "bicubic": bicubic}
            sr, hr, enlarged = (image[: max(rows, 1)] for image in images.values())
            values = {"psnr_y": psnr_y(sr, hr), "psnr_y_bicubic": psnr_y(enlarged, hr)}
            values |= {name: loss(sr, hr) for name, loss in self.val_losses.items()}
        for name, value in values.items():
            mean, key = self.means.take(f"{stage}/{name}", loader, value, rows)
            self.log(
                f"{stage}/{name}", mean, on_step=False, on_epoch=True, prog_bar=True, batch_size=max(rows, 1),
                metric_attribute=f"means.{key}",
            )  # fmt: skip
        return images

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
        """Refuse to write weights or go past losses that are not finite; note the optimizers."""
        self.check_finite()
        optimizers = [type(optimizer).__name__ for optimizer in self.trainer.optimizers]
        checkpoint[KEY] = {"optimizers": optimizers, "student": self.record.values()}

    def check_finite(self) -> None:
        """Raise ValueError if a loss since the last look or a trained weight is not finite. Every process must call it."""
        self._guard.check(self.trainer.strategy, self.trained.state().values(), self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError for a checkpoint that does not hold exactly what is trained here, or of another optimizer."""
        state = {public_name(key): value for key, value in checkpoint["state_dict"].items()}
        check_fits(self.trained.state(), {name: one for name, one in state.items() if not name.startswith(OBJECTIVE)})
        if self._trainer is not None and self._trainer.state.fn == "fit":
            check_optimizers(checkpoint, self.configure_optimizers())
        if isinstance(self.objective, FlowTrajectoryDistillation):
            self.objective.take_state(state, OBJECTIVE)  # outside of a Trainer nothing has settled it yet
        own, saved = self.record, StudentRecord.read(checkpoint.get(KEY, {}).get("student", {}), "the checkpoint")
        saved.check_base("the checkpoint", own.base, own.base_sizes)
        saved.tell_differences(
            "the checkpoint",
            guidance=own.guidance,
            prompt_digest=own.prompt_digest,
            autoencoder=own.autoencoder,
            objective=own.objective,
        )
        if self._given_scale is None and saved.scale is not None:  # neither the data nor an argument says one
            self.scale = int(saved.scale)
        self.build_table()

    def on_train_start(self) -> None:
        """Apply the configuration to the optimizer of a resumed run."""
        if resumed_from() is not None:
            schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
            take_over(self.trainer.optimizers, schedulers, self.configure_optimizers())

    @property
    def record(self) -> StudentRecord:
        """What this training makes, besides its weights; the backbone says its own part, if it is one of ours."""
        backbone = unwrapped(self.backbone)
        own = backbone.record if isinstance(backbone, FluxBackbone) else StudentRecord()
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
            license=license_of(own.base).name,
            trained="",
            steps=self.global_step,
            encoder_lora="",
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
