"""Encodes a prompt once, by a command, and caches the embeddings in a file; training never encodes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.families import FAMILIES, from_diffusers
from fluxsr.models.sources import PIPELINE, ModelSource
from fluxsr.models.weight_files import read_safetensors, write_safetensors


class PromptEmbedding(NamedTuple):
    """The embeddings of a text that a model needs.

    Attributes:
        prompt_embeds: The encoder's token features ``(1, T, joint_attention_dim)``; T may be 0.
        pooled_prompt_embeds: CLIP's pooled feature ``(1, pooled_projection_dim)``; ``None`` for FLUX.2, which has none.
        text: The prompt, for people and fingerprints.
        negative_prompt_embeds: Features of a second text ``(1, T', joint_attention_dim)``, which classifier-free guidance leads
            away from.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    text: str = ""
    negative_prompt_embeds: Tensor | None = None

    @property
    def digest(self) -> str:
        """A short digest of the embeddings: the same words may have been encoded otherwise. Empty on ``meta``."""
        return "" if self.prompt_embeds.is_meta else tensors_digest(self.prompt_embeds, self.pooled_prompt_embeds)

    def save(self, path: str | Path) -> None:
        """Write the embeddings to a safetensors file, whole or not at all."""
        tensors = {name: tensor for name, tensor in self._asdict().items() if isinstance(tensor, Tensor)}
        write_safetensors(path, tensors, metadata={"fluxsr_prompt": json.dumps({"text": self.text})})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> PromptEmbedding:
        """Read what :meth:`save` wrote; on ``meta`` only the header is read.

        Raises:
            ValueError: If the file is missing, damaged, or holds something else.
        """
        tensors, metadata = read_safetensors(path, device)
        if "fluxsr_prompt" not in metadata or not {"prompt_embeds"} <= tensors.keys() <= {*cls._fields}:
            raise ValueError(f"{path} is no prompt file; make one with `fluxsr prompt`")
        return cls(**tensors, text=json.loads(metadata["fluxsr_prompt"])["text"])


def tensors_digest(*tensors: Tensor | None) -> str:
    """Return a short digest of small tensors, as float32."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            digest.update(f"{tuple(tensor.shape)}".encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def no_prompt(config: Any, tokens: int = 0) -> PromptEmbedding:
    """Return the empty prompt of a transformer's configuration: zero tokens, and a zero pooled vector if it has one."""
    pooled = config.get("pooled_projection_dim")
    embeds = torch.zeros(1, tokens, config["joint_attention_dim"])
    return PromptEmbedding(embeds, None if pooled is None else torch.zeros(1, pooled))


def own_prompt(
    source: ModelSource, device: torch.device | str = "cpu", offline: bool = False
) -> PromptEmbedding | None:
    """Return the prompt inside of a FluxSR pipeline; ``None`` where there is none. ``offline`` asks no hub."""
    if (offline and source.kind == "hub") or source.index.get("_class_name") != PIPELINE:
        return None
    if (source.index.get("prompt") or [None])[0] is None:
        return None
    text = source.read_json("prompt/config.json").get("text", "")
    place = "meta" if torch.device(device).type == "meta" else "cpu"
    tensors, _ = read_safetensors(source.file("prompt/diffusion_pytorch_model.safetensors"), place)
    return PromptEmbedding(**tensors, text=text)


@torch.no_grad()
def encode_prompt(
    text: str,
    model: str = "black-forest-labs/FLUX.1-dev",
    *,
    negative: str | None = None,
    revision: str | None = None,
    max_tokens: int = 512,
    trim: bool = True,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> PromptEmbedding:
    """Encode one prompt with a model's own text encoders.

    FLUX.1 has T5-XXL and CLIP-L (about 10 GB), FLUX.2-klein a Qwen3 of 4 or 8 B, FLUX.2-dev a Mistral of 24 B.

    Args:
        text: The prompt.
        model: Hub id or local folder in diffusers' layout.
        negative: A second text, which classifier-free guidance leads away from (FLUX.2-klein-base: empty); FLUX.2 only.
        revision: Revision of the hub repository.
        max_tokens: The encoder's length before trimming; FLUX.1-dev and FLUX.2 were trained with 512, -schnell with 256.
        trim: Keep only the prompt's own tokens. FLUX runs with any number of them, and every token less saves time
            in each step. The padding that FLUX was trained with changes the result a little, so it is a choice. FLUX.2-dev's
            are never trimmed.
        device: Device that the encoders run on.
        dtype: Dtype of the encoders.

    Raises:
        ValueError: If the model can't be loaded, is no pipeline whose text encoders are known, or takes no negative prompt.
    """
    source = ModelSource(model, revision)
    if source.kind not in ("pipeline", "hub"):
        raise ValueError(f"{model} has no text encoders: give a pipeline's folder in diffusers' layout or its hub id")
    named = source.read_json("model_index.json").get("_class_name")
    known = {name: family for family in FAMILIES for name in family.pipelines}
    if named not in known:
        raise ValueError(f"{model} is a {named}, whose text encoders are not known here; known: {', '.join(known)}")
    family = known[named]
    kind = from_diffusers(*family.pipelines[named], model)
    if negative is not None and not family.takes_negative:
        raise ValueError(f"{model} is a {family.name}, which has its guidance inside: leave the negative prompt out")
    with source.explain():
        pipeline = kind.from_pretrained(model, revision=revision, transformer=None, vae=None, torch_dtype=dtype)
    pipeline = pipeline.to(device)
    embeds, pooled = family.encode(pipeline, text, max_tokens, trim)
    against = None if negative is None else family.encode(pipeline, negative, max_tokens, trim)[0]
    pooled, against = (None if one is None else one.cpu().contiguous() for one in (pooled, against))
    return PromptEmbedding(embeds.cpu().contiguous(), pooled, text, against)


def make_prompt(
    output: str,
    text: str = "",
    model: str = "black-forest-labs/FLUX.1-dev",
    negative: str | None = None,
    revision: str | None = None,
    max_tokens: int = 512,
    trim: bool = True,
    device: str = "cpu",
    dtype: DType = "bfloat16",
) -> PromptEmbedding:
    """Encode one prompt with a model's own text encoders (8 to 48 GB) into a small file.

    Training and upscaling read the file; the encoders are never in memory then.

    Args:
        output: The file, ending in .safetensors.
        text: The prompt; FluxSR uses one fixed prompt for every image, and publishes none.
        model: Hub id or local folder with the text encoders.
        negative: A second text for classifier-free guidance, which FLUX.2-klein-base is sampled with; usually empty ("").
        revision: Revision of the hub repository.
        max_tokens: The encoder's length before trimming; 512 for FLUX.1-dev and FLUX.2, 256 for FLUX.1-schnell.
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
        negative=negative,
        revision=revision,
        max_tokens=max_tokens,
        trim=trim,
        device=str(choose_device(device)),
        dtype=getattr(torch, dtype),
    )
    embedding.save(output)
    return embedding
