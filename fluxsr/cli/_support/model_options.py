"""Loads the model of a command: all that have one take the same options for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxsr.cli._support.messages import tell
from fluxsr.cli._support.signatures import read_signature

if TYPE_CHECKING:
    from fluxsr.inference import Upscaler

# Which models a command takes: every command that has a model takes these options.
MODEL = "fluxsr.inference.upscaler:Upscaler.from_pretrained"
SHOWN = {"lora": "FILE", "prompt": "FILE", "autoencoder": "AE", "device": "NAME", "memory": "SIZE|auto"}


def take_model(options: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of :func:`load_upscaler` out of a command's options."""
    names = read_signature(MODEL)[1].keys()
    return {name: options.pop(name) for name in names & options.keys()}


def load_upscaler(model: str | None, **options: Any) -> Upscaler:
    """Load the model."""
    from fluxsr.inference import Upscaler

    try:
        return Upscaler.from_pretrained(model, **options, say=tell)
    except RuntimeError as error:  # a device that is there and fails, weights of other shapes
        raise ValueError(f"can't load {model or 'the shipped student'}: {error}") from error
