"""Provides the LightningModule, its loss terms and callbacks."""

from fluxsr.training.adversary import Adversary
from fluxsr.training.batches import as_batch
from fluxsr.training.checkpoints import AtomicCheckpointIO
from fluxsr.training.image_adversary import ImageAdversary
from fluxsr.training.module import OneStepSR
from fluxsr.training.optimizers import AdamW8bit, MuonAdamW
from fluxsr.training.pair_maker import MadePairs, make_pairs
from fluxsr.training.strategies import FSDP2Strategy
from fluxsr.training.terms import FeatureTerm, ImageTerm, LatentTerm, LossTerm, StepOutputs
from fluxsr.training.validation import psnr_y

__all__ = [
    "AdamW8bit",
    "Adversary",
    "AtomicCheckpointIO",
    "FSDP2Strategy",
    "FeatureTerm",
    "ImageAdversary",
    "ImageTerm",
    "LatentTerm",
    "LossTerm",
    "MadePairs",
    "MuonAdamW",
    "OneStepSR",
    "StepOutputs",
    "as_batch",
    "make_pairs",
    "psnr_y",
]
