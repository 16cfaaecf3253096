"""Implements the adversarial terms: FlowSR's discriminator of latents, and what both kinds of discriminator share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.losses import hinge_discriminator_loss, hinge_generator_loss, r1_penalty
from fluxsr.models import FluxBackbone, LatentDiscriminator
from fluxsr.training.terms import StepOutputs

ADVERSARIAL = "adversarial"  # the term's name in logs


class Adversary(nn.Module):
    """Adds the adversarial term: hinge, on all latents that the student estimates (FlowSR, arXiv 2605.12377).

    With it :class:`OneStepSR` optimizes manually: each batch makes one step of the student, then one of the discriminator on
    the same latents. Lightning then refuses the trainer's ``gradient_clip_val`` and ``accumulate_grad_batches``, so they are
    set here. With DDP use ``strategy: ddp_find_unused_parameters_true``: neither step touches the other's weights.

    Args:
        weight: Multiplier of the term in the student's loss; 0.1 is our default (the paper publishes none).
        layers: Blocks whose features the discriminator sees; see :class:`fluxsr.models.LatentDiscriminator`.
        width: Hidden units of its heads.
        time: Time at which it takes the features; 0 is the data end.
        r1_weight: Weight of the R1 penalty on real samples; 0 leaves it out.
        warmup_steps: Steps in which the discriminator learns and the student does not receive its gradient yet.
        adaptive: Scale the term so that its gradient at the latents is as large as that of all other terms together.
            ``weight`` multiplies that. It is VQGAN's adaptive weight (arXiv 2012.09841), taken at the latents.
        optimizer: Optimizer of the heads; AdamW at 1e-4 with betas (0, 0.99) by default (ours).
        gradient_clip_val: Largest norm of the student's gradient, and of the heads'; ``None``: no limit.
        accumulate_grad_batches: Batches per step.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        weight: float = 0.1,
        layers: list[int] | None = None,
        width: int = 64,
        time: float = 0.0,
        r1_weight: float = 0.0,
        warmup_steps: int = 0,
        adaptive: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        gradient_clip_val: float | None = 1.0,
        accumulate_grad_batches: int = 1,
    ) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight must be positive, got {weight}; to train without an adversary leave it out")
        if min(r1_weight, warmup_steps) < 0:
            raise ValueError(f"r1_weight and warmup_steps must not be negative, got {r1_weight} and {warmup_steps}")
        if accumulate_grad_batches < 1:
            raise ValueError(f"accumulate_grad_batches must be at least 1, got {accumulate_grad_batches}")
        self.weight = weight
        self.layers = layers
        self.width = width
        self.time = time
        self.r1_weight = r1_weight
        self.warmup_steps = warmup_steps
        self.adaptive = adaptive
        self.make_optimizer = optimizer or (lambda heads: torch.optim.AdamW(heads, lr=1e-4, betas=(0.0, 0.99)))
        self.gradient_clip_val = gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.discriminator: Any = None  # judge_with makes it

    def judge_with(self, backbone: nn.Module) -> None:
        """Make the discriminator on a backbone's features, which only a FLUX has."""
        if not isinstance(backbone, FluxBackbone):
            raise ValueError(
                f"{type(backbone).__name__} has no FLUX features for the adversary; leave the adversary out"
            )
        self.discriminator = LatentDiscriminator(backbone, self.layers, self.width, self.time)

    def heads(self) -> Iterator[nn.Parameter]:
        """Yield what the discriminator's optimizer trains."""
        return self.discriminator.heads.parameters()

    def features(self, samples: Tensor) -> list[Tensor]:
        """Return the frozen features of samples, ``(B, N, D)`` for each head, with gradient to the samples."""
        return self.discriminator.features(samples)

    def fakes(self, outputs: StepOutputs) -> Tensor:
        """Return all that the student made, with gradient to it."""
        flow = outputs.flow
        return torch.cat([flow.x0_hat, *(x0_hat for x0_hat, _ in flow.estimates)])

    def reals(self, outputs: StepOutputs) -> Tensor:
        """Return real samples of the same kind."""
        return outputs.flow.x0_target

    def generator_loss(self, fake_features: list[Tensor]) -> Tensor:
        """Return the student's side, unweighted; the gradient goes through the frozen features into the latents."""
        return hinge_generator_loss(self.discriminator.judge(fake_features, frozen=True))

    def discriminator_loss(self, fake_features: list[Tensor], real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's side with its penalty, and what to log; no gradient reaches the student."""
        with torch.no_grad():
            real_features = self.features(real)
        if self.r1_weight:
            real_features = [feature.requires_grad_() for feature in real_features]
        fake_logits = self.discriminator.judge([feature.detach() for feature in fake_features])
        real_logits = self.discriminator.judge(real_features)
        loss = hinge_discriminator_loss(real_logits, fake_logits)
        logs = {"logits_real": _average(real_logits), "logits_fake": _average(fake_logits)}
        if self.r1_weight:
            penalty = r1_penalty(real_logits, real_features)
            logs["r1"] = penalty.detach()
            loss = loss + self.r1_weight * penalty
        return loss, {"discriminator": loss.detach(), **logs}

    def losses(self, others: Tensor, outputs: StepOutputs, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the student's total, the discriminator's loss, and what to log; ``others`` are the student's other terms."""
        total, logs = others, {}
        warm = step >= self.warmup_steps
        with torch.set_grad_enabled(warm):
            fake_features = self.features(self.fakes(outputs))
        if warm:
            adversarial = self.generator_loss(fake_features)
            weight = self.effective_weight(others, adversarial, outputs.flow.x0_hat)
            total = others + weight * adversarial
            logs = {ADVERSARIAL: adversarial.detach(), "adversarial_weight": torch.as_tensor(weight)}
        judged, judge_logs = self.discriminator_loss(fake_features, self.reals(outputs))
        return total, judged, logs | judge_logs

    def effective_weight(self, others: Tensor, adversarial: Tensor, x0_hat: Tensor) -> float | Tensor:
        """Return what multiplies the term; ``x0_hat`` is the student's estimate, which it and the others depend on."""
        if not self.adaptive:
            return self.weight
        (other_gradient,) = torch.autograd.grad(others, x0_hat, retain_graph=True, allow_unused=True)
        if other_gradient is None:
            raise ValueError("adaptive=True balances against terms on the student's estimate: add an image loss")
        (gradient,) = torch.autograd.grad(adversarial, x0_hat, retain_graph=True)
        return self.weight * (other_gradient.float().norm() / gradient.float().norm().clamp_min(1e-12)).clamp(max=1e4)


def _average(heads: list[Tensor]) -> Tensor:
    return torch.stack([logits.detach().mean() for logits in heads]).mean()
