"""A prompt as embeddings: made once by a command, cached in a file, never encoded in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.sources import ModelSource
from fluxsr.models.weight_files import read_safetensors, write_safetensors


class PromptEmbedding(NamedTuple):
    """What FLUX wants to know of a text.

    Attributes:
        prompt_embeds: T5's token features ``(1, T, joint_attention_dim)``; T may be 0.
        pooled_prompt_embeds: CLIP's pooled feature ``(1, pooled_projection_dim)``.
        text: the prompt, for people and fingerprints.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    text: str = ""

    def save(self, path: str | Path) -> None:
        """Write the embeddings to a safetensors file, whole or not at all."""
        tensors = {"prompt_embeds": self.prompt_embeds, "pooled_prompt_embeds": self.pooled_prompt_embeds}
        write_safetensors(path, tensors, metadata={"fluxsr_prompt": json.dumps({"text": self.text})})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> PromptEmbedding:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            device: Where the embeddings go. On ``meta`` only the header is read.

        Raises:
            ValueError: if the file is missing, damaged, or holds something else.
        """
        tensors, metadata = read_safetensors(path, device)
        try:
            text = json.loads(metadata["fluxsr_prompt"])["text"]
            return cls(tensors["prompt_embeds"], tensors["pooled_prompt_embeds"], text)
        except KeyError:
            raise ValueError(f"{path} is no prompt file; make one with `fluxsr prompt`") from None


def no_prompt(joint_attention_dim: int, pooled_projection_dim: int) -> PromptEmbedding:
    """Return the empty prompt: no text tokens, a zero pooled vector."""
    return PromptEmbedding(torch.zeros(1, 0, joint_attention_dim), torch.zeros(1, pooled_projection_dim))


@torch.no_grad()
def encode_prompt(
    text: str,
    model: str = "black-forest-labs/FLUX.1-dev",
    *,
    revision: str | None = None,
    max_tokens: int = 512,
    trim: bool = True,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> PromptEmbedding:
    """Encode one prompt with FLUX's two text encoders (T5-XXL and CLIP-L, about 10 GB).

    Args:
        text: the prompt.
        model: hub id or local folder in diffusers' layout.
        revision: Revision of the hub repository.
        max_tokens: T5's length before trimming; FLUX.1-dev was trained with 512, -schnell with 256.
        trim: keep only the prompt's own tokens. FLUX runs with any number of them, and every token less saves time
            in each step; the padding that FLUX was trained with changes the result a little, so it is a choice.
        device: where the encoders run.
        dtype: Dtype of the encoders.

    Raises:
        ValueError: if the model can't be loaded, with what to do.
    """
    from diffusers import FluxPipeline

    source = ModelSource(model, revision)
    if source.kind not in ("pipeline", "hub"):
        raise ValueError(
            f"{model} has no text encoders: give a FLUX pipeline's folder in diffusers' layout or its hub id"
        )
    with source.explain():
        pipeline = FluxPipeline.from_pretrained(
            model, revision=revision, transformer=None, vae=None, torch_dtype=dtype
        ).to(device)
    embeds, pooled, _ = pipeline.encode_prompt(prompt=text, prompt_2=None, max_sequence_length=max_tokens)
    if trim:
        length = len(pipeline.tokenizer_2(text, truncation=True, max_length=max_tokens).input_ids)
        embeds = embeds[:, :length]
    return PromptEmbedding(embeds.cpu().contiguous(), pooled.cpu().contiguous(), text)


def make_prompt(
    output: str,
    text: str = "",
    model: str = "black-forest-labs/FLUX.1-dev",
    revision: str | None = None,
    max_tokens: int = 512,
    trim: bool = True,
    device: str = "cpu",
    dtype: DType = "bfloat16",
) -> PromptEmbedding:
    """Encode one prompt with FLUX's text encoders (T5 and CLIP, about 10 GB) into a small file.

    Training and upscaling read the file; the encoders are never in memory then.

    Args:
        output: The file, ending in .safetensors.
        text: The prompt; FluxSR uses one fixed prompt for every image, and publishes none.
        model: Hub id or local folder with the text encoders.
        revision: Revision of the hub repository.
        max_tokens: T5's length before trimming; 512 for FLUX.1-dev, 256 for -schnell.
        trim: Keep the prompt's own tokens only; every token less saves time in each step.
        device: Device that the encoders run on: cpu, cuda, mps or auto.
        dtype: Dtype of the encoders.

    Raises:
        ValueError: If ``output`` does not end in ``.safetensors``, or the encoders can't be loaded.
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
    return embedding
