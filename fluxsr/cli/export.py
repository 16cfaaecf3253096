"""Runs ``fluxsr export``: it writes a base and its adapter as one model, in the format of diffusers."""

from __future__ import annotations

from fluxsr.cli._support.command import Command
from fluxsr.cli._support.made import tell_model

COMMAND = Command(
    "export",
    ("fluxsr.inference.export:export_model",),
    examples="""
    fluxsr export --output nano-model                                    # the shipped student, folded
    fluxsr export --output restorer --model black-forest-labs/FLUX.1-dev --guidance 3.5 \\
      --prompt prompt.safetensors --lora outputs/fluxsr_flux1dev/backbone.safetensors --dtype bfloat16
    fluxsr export --output transformer.safetensors --model nano --lora outputs/fluxsr_nano/backbone.safetensors
    """,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    tell_model(COMMAND.run(arguments))
