"""What a training run takes, before anything is downloaded or rented."""

from fluxsr.planning.advice import Advice, advise
from fluxsr.planning.plan import Experiment, Phase, Plan, make_plan
from fluxsr.planning.step import Settings

__all__ = ["Advice", "Experiment", "Phase", "Plan", "Settings", "advise", "make_plan"]
