"""The page of ``fluxsr app`` as a Space of Hugging Face: variables of the Space say which model."""

from __future__ import annotations

import os

from fluxsr.app.server import serve_upscaling
from fluxsr.inference import Upscaler

MODEL = os.environ.get("FLUXSR_MODEL") or None
MEMORY = os.environ.get("FLUXSR_MEMORY") or None

if __name__ == "__main__":
    serve_upscaling(
        host="0.0.0.0",
        port=int(os.environ.get("PORT", "7860")),  # where a Space listens
        max_pixels=int(os.environ.get("FLUXSR_MAX_PIXELS", "8000000")),
        name=MODEL or "nano-student",
        load=lambda: Upscaler.from_pretrained(MODEL, memory=MEMORY, say=print),
    )
