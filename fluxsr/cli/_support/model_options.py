"""Declares the options of `fluxsr upscale` and `fluxsr app` that choose a model and how it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxsr.cli._support.messages import UsageError
from fluxsr.cli._support.printing import tell
from fluxsr.cli._support.values import pixels, tile

if TYPE_CHECKING:
    from fluxsr.inference import Upscaler

FUNCTIONS = ("fluxsr.inference.upscaler:Upscaler.from_pretrained", "fluxsr.inference.parts:load_parts")
# The window belongs to the model, whose file or folder says it; a revision to `fluxsr export`.
HIDDEN = frozenset({"window", "revision", "say"})
VALUES = {"tile": tile, "max_pixels": pixels}
SHOWN = {
    "tile": "auto|N|off",
    "max_pixels": "N",
    "lora": "FILE",
    "prompt": "FILE",
    "autoencoder": "AE",
    "device": "NAME",
    "memory": "SIZE|auto",
}
_NAMES = [
    "model",
    "lora",
    "prompt",
    "guidance",
    "autoencoder",
    "start_time",
    "tile",
    "color_fix",
    "grid_fix",
    "ensemble",
    "device",
    "dtype",
    "memory",
]


def take_model(options: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of :func:`load_upscaler` out of a command's options."""
    return {name: options.pop(name) for name in _NAMES}


def load_upscaler(model: str | None, **options: Any) -> Upscaler:
    """Load the model.

    Raises:
        ValueError: If that fails, with what to do.
    """
    from fluxsr.inference import Upscaler

    try:
        return Upscaler.from_pretrained(model, **options, say=tell)
    except RuntimeError as error:  # a device that is there and fails, weights of other shapes
        raise UsageError(f"can't load {model or 'the shipped student'}: {error}") from error


def tell_peak(upscaler: Upscaler) -> None:
    """Print the peak that was measured beside the one that was planned, where there is a plan and a device that counts."""
    from fluxsr.inference.memory import measured_peak
    from fluxsr.sizes import gigabytes

    plan, measured = upscaler.memory_plan, measured_peak(upscaler.device)
    if plan is not None and measured is not None:
        tell(f"memory: measured peak {gigabytes(measured)}, expected {gigabytes(plan.peak_bytes)}")
