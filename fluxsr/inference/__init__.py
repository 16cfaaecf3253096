"""Upscaling photos with what was trained: any size, any scale, bounded memory. Knows models and flows, not training.

Names are imported on first use, so that reading picture files needs no diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxsr.inference.files import Picture, read_picture, write_picture
    from fluxsr.inference.loading import load_upscaler
    from fluxsr.inference.pipeline import FluxSRPipeline
    from fluxsr.inference.upscaler import Upscaler

_HOME = {
    "FluxSRPipeline": "pipeline",
    "Picture": "files",
    "Upscaler": "upscaler",
    "load_upscaler": "loading",
    "read_picture": "files",
    "write_picture": "files",
}

__all__ = ["FluxSRPipeline", "Picture", "Upscaler", "load_upscaler", "read_picture", "write_picture"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
