"""Runs ``fluxsr app``: a page in the browser, served from this computer."""

from __future__ import annotations

from fluxsr.app.server import serve_upscaling
from fluxsr.cli._support import model_options
from fluxsr.cli._support.options import Command
from fluxsr.cli._support.values import port

COMMAND = Command(
    "app",
    ("fluxsr.app.server:serve_upscaling", *model_options.FUNCTIONS),
    examples="""
    fluxsr app
    fluxsr app --model nano --lora outputs/fluxsr_nano/backbone.safetensors --port 8000
    """,
    notes="Needs Gradio: pip install 'fluxsr[app]'. Ctrl-C ends it; uploads and results are deleted then.",
    values={**model_options.VALUES, "port": port},
    shown={**model_options.SHOWN, "host": "ADDRESS"},
    hidden=model_options.HIDDEN | {"name"},
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    model = model_options.take_model(options)
    name = model["model"] or "nano-student"
    serve_upscaling(**options, name=name, load=lambda: model_options.load_upscaler(**model))
