"""Runs ``fluxsr export``: it writes a base and its adapter as one model, in the format of diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxsr.cli._support.command import Command
from fluxsr.sizes import gigabytes

if TYPE_CHECKING:
    from fluxsr.inference.export import ExportedModel

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
    made: ExportedModel = COMMAND.run(arguments)
    from fluxsr.models.known_names import license_of

    print(f"{made.model}: {_amount(made.parameters, made.dtype)}")
    folded = f"folded at t = {made.start_time:g}" if made.folded else "not folded"
    print(f"{folded}: {_amount(made.exported, made.dtype)}")
    quantized = "" if made.quantize is None else f", {made.quantize}"
    license = license_of(made.base_model)
    print(f"{made.path}: {gigabytes(made.size)} on disk{quantized}, license: {license.name}")
    if not license.commercial:
        print(f"made from {made.base_model}: {license.terms.replace('*', '')}")


def _amount(numbers: int, dtype: str) -> str:
    import torch

    return f"{numbers:,} parameters, {gigabytes(numbers * getattr(torch, dtype).itemsize)} in {dtype}"
