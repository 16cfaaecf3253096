"""Runs ``fluxsr prompt``: it runs a model's text encoders once and keeps the result."""

from __future__ import annotations

from fluxsr.cli._support.command import Command

COMMAND = Command(
    "prompt",
    ("fluxsr.models.prompts:make_prompt",),
    examples="""
    fluxsr prompt --output prompt.safetensors --text "a photo"
    fluxsr prompt --output prompt.safetensors --model black-forest-labs/FLUX.1-schnell --max_tokens 256
    fluxsr prompt --output prompt.safetensors --text "a photo" --negative "" --model black-forest-labs/FLUX.2-klein-base-4B
    """,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    from fluxsr.models.prompts import make_prompt

    embedding = make_prompt(**options)
    print(f"{options['output']}: {embedding.prompt_embeds.shape[1]} tokens of {options['text']!r}")
