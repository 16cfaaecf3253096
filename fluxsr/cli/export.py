"""``fluxsr export``: a base and its adapter as one model, in the format of diffusers."""

from __future__ import annotations

import torch

from fluxsr.cli.run import run
from fluxsr.inference.export import ExportedModel, export_model
from fluxsr.inference.model_card import APACHE, license_of

EXAMPLES = """
fluxsr export --output nano-model                                    # the shipped student, folded
fluxsr export --output restorer --model black-forest-labs/FLUX.1-dev --guidance 3.5 \\
  --prompt prompt.safetensors --lora outputs/fluxsr_flux1dev/backbone.safetensors --dtype bfloat16
fluxsr export --output transformer.safetensors --model nano --lora outputs/fluxsr_nano/backbone.safetensors
"""


def main(arguments: list[str]) -> None:
    """Run the command."""
    tell(run(export_model, "export", arguments, EXAMPLES))


def tell(made: ExportedModel) -> None:
    """Print what was written."""
    print(f"{made.model}: {_amount(made.parameters, made.dtype)}")
    folded = f"folded at t = {made.start_time:g}" if made.folded else "not folded"
    print(f"{folded}: {_amount(made.exported, made.dtype)}")
    quantized = "" if made.quantize is None else f", {made.quantize}"
    license = license_of(made.base_model)
    print(f"{made.path}: {_gigabytes(made.size)} on disk{quantized}, {license.name}")
    if license != APACHE:
        print(f"made from {made.base_model}: not for commercial use; its license goes with every copy")


def _amount(numbers: int, dtype: str) -> str:
    return f"{numbers:,} parameters, {_gigabytes(numbers * getattr(torch, dtype).itemsize)} in {dtype}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
