"""The LightningModule, its loss terms and callbacks."""

from fluxsr.training.module import OneStepSR, psnr_y
from fluxsr.training.shipped import nano_student
from fluxsr.training.terms import FeatureTerm, ImageTerm, LatentTerm, LossTerm, StepOutputs

__all__ = ["FeatureTerm", "ImageTerm", "LatentTerm", "LossTerm", "OneStepSR", "StepOutputs", "nano_student", "psnr_y"]
