"""Runs ``fluxsr app``: a page in the browser, served from this computer."""

from __future__ import annotations

from fluxsr.cli._support import model_options
from fluxsr.cli._support.command import Command

COMMAND = Command(
    "app",
    ("fluxsr.app.server:serve_upscaling", model_options.MODEL),
    examples="""
    fluxsr app
    fluxsr app --model nano --lora outputs/fluxsr_nano/backbone.safetensors --port 8000
    """,
    notes="Needs Gradio: pip install 'fluxsr[app]'. Ctrl-C ends it; uploads and results are deleted then.",
    shown={"host": "ADDRESS", **model_options.SHOWN},
    hidden=frozenset({"name"}),
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    if options["port"] is not None and not 1 <= options["port"] <= 65535:
        raise ValueError(f"--port must be a number from 1 to 65535, got {options['port']}")
    from fluxsr.app.server import serve_upscaling

    model = model_options.take_model(options)
    name = model["model"] or "nano-student"
    serve_upscaling(**options, name=name, load=lambda: model_options.load_upscaler(**model))
