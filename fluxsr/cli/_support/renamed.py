"""Refuses options and keys that had another name or place before, and names their successors."""

from __future__ import annotations

# (command, option as a parameter's name) -> the present one
OPTIONS = {("export", "vae"): "autoencoder"}

_RANGES = (
    "kernel_sizes",
    "kernel_probs",
    "sinc_prob",
    "blur_sigma",
    "betag",
    "betap",
    "resize_prob",
    "resize_range",
    "gaussian_noise_prob",
    "noise_range",
    "poisson_scale_range",
    "gray_noise_prob",
    "jpeg_range",
)
# class -> argument -> the present one, with dots
ARGUMENTS = {
    "fluxsr.data.degradation.real_esrgan.RealESRGANDegradation": {
        **{name: f"first.{name}" for name in _RANGES},
        **{f"{name}2": f"second.{name}" for name in _RANGES},
    }
}


def successor(function: object, argument: str) -> str:
    """Return what an argument of a class is called now, or an empty text if it never had another name."""
    home = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    return ARGUMENTS.get(home, {}).get(argument, "")
