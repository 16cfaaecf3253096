"""Trains and runs one-step image super-resolution by flow distillation on FLUX.

Each package can be imported alone. ``fluxsr.flows`` and ``fluxsr.losses`` need torch only. ``fluxsr.models``,
``fluxsr.data`` and ``fluxsr.training`` load diffusers, peft and lightning when one of their names is used.
"""

__version__ = "0.2.0"
