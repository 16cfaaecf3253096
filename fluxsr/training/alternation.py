"""Alternates one step of the student and one of the discriminator, which automatic optimization can't do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from fluxsr.training.adversary import Adversary
from fluxsr.training.terms import StepOutputs

if TYPE_CHECKING:
    from fluxsr.training.module import OneStepSR


def alternate(
    module: OneStepSR, adversary: Adversary, others: Tensor, outputs: StepOutputs, batch_idx: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make one step of the student and one of the discriminator manually; return the student's total and what to log.

    Args:
        module: The module, which holds the optimizers.
        adversary: Judges, and says how many batches make a step.
        others: Sum of the student's other terms.
        outputs: Outputs of the step.
        batch_idx: Number of the batch in the epoch.
    """
    student: Any = module.optimizers()[0]  # type: ignore[index]
    # Stepped as it is: Lightning counts every step of a wrapped optimizer, and max_steps would end at half of them.
    discriminator = module.trainer.optimizers[1]
    due = (batch_idx + 1) % adversary.accumulate_grad_batches == 0 or module.trainer.is_last_batch
    total, judged, logs = adversary.losses(others, outputs, module.global_step)
    for optimizer, loss in ((student, total), (discriminator, judged)):
        module.manual_backward(loss / adversary.accumulate_grad_batches)
        if due:
            if adversary.gradient_clip_val is not None:
                module.configure_gradient_clipping(optimizer, adversary.gradient_clip_val, "norm")
            optimizer.step()
            optimizer.zero_grad()
    if due:
        scheduler: Any = module.lr_schedulers()
        if scheduler is not None:
            scheduler.step()
        module.after_step()
    return total, logs
