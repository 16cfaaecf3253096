"""``fluxsr prompt``: run FLUX's text encoders once and keep the result."""

from __future__ import annotations

import torch

from fluxsr.cli.run import run
from fluxsr.models import encode_prompt
from fluxsr.models.devices import DType, check_dtype, choose_device

EXAMPLES = """
fluxsr prompt --output prompt.safetensors --text "a photo"
fluxsr prompt --output prompt.safetensors --model black-forest-labs/FLUX.1-schnell --max_tokens 256
"""


def make_prompt(
    output: str,
    text: str = "",
    model: str = "black-forest-labs/FLUX.1-dev",
    revision: str | None = None,
    max_tokens: int = 512,
    trim: bool = True,
    device: str = "cpu",
    dtype: DType = "bfloat16",
) -> None:
    """Encode one prompt with FLUX's text encoders (T5 and CLIP, about 10 GB) into a small file.

    Training and upscaling read the file; the encoders are never in memory then.

    Args:
        output: the file, ending in .safetensors.
        text: the prompt; FluxSR uses one fixed prompt for every image, and publishes none.
        model: hub id or local folder with the text encoders.
        revision: Revision of the hub repository.
        max_tokens: T5's length before trimming; 512 for FLUX.1-dev, 256 for -schnell.
        trim: keep the prompt's own tokens only; every token less saves time in each step.
        device: where the encoders run: cpu, cuda, mps or auto.
        dtype: Dtype of the encoders.
    """
    if not output.endswith(".safetensors"):
        raise ValueError(f"output must end in .safetensors, got {output!r}")
    check_dtype(dtype)
    embedding = encode_prompt(
        text,
        model,
        revision=revision,
        max_tokens=max_tokens,
        trim=trim,
        device=str(choose_device(device)),
        dtype=getattr(torch, dtype),
    )
    embedding.save(output)
    print(f"{output}: {embedding.prompt_embeds.shape[1]} tokens of {text!r}")


def main(arguments: list[str]) -> None:
    """Run the command."""
    run(make_prompt, "prompt", arguments, EXAMPLES)
