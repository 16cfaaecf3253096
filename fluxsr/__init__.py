"""One-step real-world image super-resolution by flow distillation on FLUX.

Each room can be imported alone: ``fluxsr.flows`` and ``fluxsr.losses`` need torch only; ``fluxsr.models``,
``fluxsr.data`` and ``fluxsr.training`` bring diffusers, peft and lightning when they are asked for.
"""

__version__ = "0.1.0"
