"""Computes what a training run takes, before anything is downloaded or rented."""

from fluxsr.planning.advice import Advice, advise
from fluxsr.planning.plan import Experiment, Phase, Plan, Validation, make_plan
from fluxsr.planning.step import Settings

__all__ = ["Advice", "Experiment", "Phase", "Plan", "Settings", "Validation", "advise", "make_plan"]
