"""Computes hinge losses of generator and discriminator, and the R1 penalty, on lists of logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def hinge_generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Return the generator's side, ``-mean(D(fake))``: a scalar, the mean over heads.

    Args:
        fake: The logits of generated samples, one tensor of any shape per discriminator head; none is a ``ValueError``.
    """
    return -_mean(fake)


def hinge_discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return ``mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake)))``: a scalar, the mean over heads.

    It is 2 for a discriminator that always says 0, and 0 once every logit has the right sign and a size of at least 1.

    Args:
        real, fake: The logits of real and of generated samples, one tensor of any shape per head; none is a ``ValueError``.

    Source: Lim and Ye 2017 (arXiv 1705.02894); the hinge is our default, FlowSR (arXiv 2605.12377) does not publish its game.
    """
    return _mean([torch.relu(1 - logits.float()) for logits in real]) + _mean(
        [torch.relu(1 + logits.float()) for logits in fake]
    )


def r1_penalty(logits: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Return half the squared gradient of each head's logits by its input: a scalar, the mean over samples and heads.

    It has a graph, since it is differentiated again when the heads are trained.

    Args:
        logits: One tensor per head, made from ``inputs``.
        inputs: One tensor ``(B, ...)`` per head that requires a gradient; the features that the head looks at.

    Source: Mescheder et al. 2018 (arXiv 1801.04406), eq. 9. The gradient is by the heads' inputs and not
        the image, as in adversarial diffusion distillation (arXiv 2311.17042). That spares a second pass through the
        frozen features.
    """
    gradients = torch.autograd.grad([one.float().sum() for one in logits], list(inputs), create_graph=True)
    return _mean([gradient.float().square().flatten(1).sum(dim=1) / 2 for gradient in gradients])


def _mean(heads: Sequence[Tensor]) -> Tensor:
    if isinstance(heads, Tensor):
        raise ValueError("logits come as a list, one tensor for each head: wrap a tensor in a list")
    if not heads:
        raise ValueError("there are no logits: the discriminator has no head")
    return torch.stack([head.float().mean() for head in heads]).mean()
