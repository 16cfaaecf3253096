"""Provides losses for image super-resolution, with PyTorch only.

Image losses are called ``loss(sr_image, hr_image)`` on ``(B, 3, H, W)`` images in [0, 1], feature losses on what a
transformer computes inside. Pure functions are in :mod:`fluxsr.losses.functional`.

    from fluxsr.losses import TVLPIPSLoss
    loss = TVLPIPSLoss(net="nano")          # or "vgg", "alex", "squeeze", or your own network
    loss(sr_image, hr_image).backward()
"""

from fluxsr.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss, r1_penalty
from fluxsr.losses.dists import DISTSLoss
from fluxsr.losses.feature import AttentionDiversificationLoss, AttentionMapDiversificationLoss
from fluxsr.losses.perceptual import LPIPSLoss, MSELPIPSLoss, TVLPIPSLoss, load_network
from fluxsr.losses.pixel import CharbonnierLoss, L1Loss, MSELoss
from fluxsr.losses.quality import CLIPQualityLoss, ScoreLoss
from fluxsr.losses.spectrum import PeriodicityLoss, patch_artefact_energy

__all__ = [
    "AttentionDiversificationLoss",
    "AttentionMapDiversificationLoss",
    "CLIPQualityLoss",
    "CharbonnierLoss",
    "DISTSLoss",
    "L1Loss",
    "LPIPSLoss",
    "MSELPIPSLoss",
    "MSELoss",
    "PeriodicityLoss",
    "ScoreLoss",
    "TVLPIPSLoss",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "load_network",
    "patch_artefact_energy",
    "r1_penalty",
]
