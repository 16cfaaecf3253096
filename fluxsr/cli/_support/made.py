"""Describes results in lines for people: pairs, which `fluxsr fit` makes too, and an exported model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxsr.inference.export import ExportedModel
    from fluxsr.training.pair_maker import MadePairs

# Rms error of latents after inversion and back, above which the user is told: half of their own deviation.
POOR_ROUND_TRIP = 0.5


def tell_pairs(made: MadePairs) -> None:
    """Print what was made."""
    before = f", {made.done_before} of them done before" if made.done_before else ""
    print(f"{made.num} pairs of {made.size}x{made.size} in {made.folder}{before}")
    if len(made.round_trip):
        error = made.round_trip.mean()
        print(f"inversion and back: rms error of the latents {error:.4f}, worst {made.round_trip.max():.4f}")
        if error > POOR_ROUND_TRIP:
            print(f"that is much, where the latents' deviation is about 1: make them with more steps than {made.steps}")


def tell_model(made: ExportedModel) -> None:
    """Print what was written."""
    from fluxsr.models.known_names import license_of

    print(f"{made.model}: {_amount(made.parameters, made.dtype)}")
    folded = f"folded at t = {made.start_time:g}" if made.folded else "not folded"
    print(f"{folded}: {_amount(made.exported, made.dtype)}")
    quantized = "" if made.quantize is None else f", {made.quantize}"
    license = license_of(made.base_model)
    print(f"{made.path}: {_gigabytes(made.size)} on disk{quantized}, license: {license.name}")
    if not license.commercial:
        print(f"made from {made.base_model}: {license.terms.replace('*', '')}")


def _amount(numbers: int, dtype: str) -> str:
    import torch

    return f"{numbers:,} parameters, {_gigabytes(numbers * getattr(torch, dtype).itemsize)} in {dtype}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
