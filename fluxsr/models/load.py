"""Loads a FLUX backbone from any source, onto any device; on meta it needs no weight and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fluxsr.models.adapters import LoraFile, read_lora
from fluxsr.models.families import Family, family_of, is_folded
from fluxsr.models.flux import FluxBackbone
from fluxsr.models.prompts import PromptEmbedding, no_prompt, own_prompt
from fluxsr.models.quantization import Quantization, quantization_config
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import StudentRecord
from fluxsr.models.weight_files import own_memory, read_safetensors


def load_flux(
    model: str = "nano",
    *,
    weights: bool = True,
    prompt: str | None = None,
    text_stream: bool = True,
    guidance: float | None = None,
    trainable: Literal["lora", "full", "none"] = "lora",
    lora_rank: int = 64,
    lora_alpha: float | None = None,
    lora_targets: list[str] | None = None,
    lora_weights: str | None = None,
    teacher_lora: str | None = None,
    dtype: str = "float32",
    quantize: Quantization | None = None,
    gradient_checkpointing: bool = False,
    revision: str | None = None,
    device: torch.device | str | None = None,
) -> FluxBackbone:
    """Load a FLUX backbone and choose which part of it is trained.

    On the ``meta`` device nothing is downloaded and no weight is read. The architecture comes from a file's header, a folder's
    ``config.json``, the hub's cache on this disk or a known model's name. A prompt file that does not exist counts as 512
    tokens there, an adapter file that does not exist as an adapter of rank ``lora_rank``, and nothing is quantized.

    Args:
        model: Name of the model, folded or not. Shipped are ``nano`` (the teacher), ``nano-student`` (FluxSR's) and
            ``nano-flowsr``. Otherwise it is a hub id (``black-forest-labs/FLUX.1-dev``), a local folder in diffusers' layout
            (of a pipeline or of a transformer alone), or a ``.safetensors`` file made by this library. With
            ``weights=False`` or on ``meta``, the name of an architecture will do. See
            :class:`fluxsr.models.sources.ModelSource`.
        weights: Whether to load weights. ``False`` gives random ones, to train from scratch, and downloads nothing.
        prompt: File of cached embeddings made by ``fluxsr prompt``; none: no text tokens.
        text_stream: Whether to keep what works on text tokens alone. Without a prompt nothing flows through it; leaving it out
            saves 18 % of FLUX.2-klein-4B and changes no output.
        guidance: Guidance scale of models with a guidance embedding (FLUX.1-dev: 3.5).
        trainable: ``lora``: a new adapter on a frozen base; ``full``: every weight; ``none``: nothing.
        lora_rank: Rank of the adapter. The paper publishes none; 64 is our default.
        lora_alpha: Numerator of the adapter's scale, ``alpha / rank``; the rank itself by default.
        lora_targets: Names of the adapted linears; attention and MLP linears by default (ours).
        lora_weights: Adapter file to start from, instead of a new one.
        teacher_lora: Adapter file that becomes the frozen role ``teacher`` on the same base, for objectives that need one.
        dtype: Name of the frozen weights' torch dtype; adapters stay in float32.
        quantize: ``int8``, ``fp8`` (torchao) or ``nf4`` (bitsandbytes, CUDA) for the frozen linears of a folder or hub id, done
            by diffusers while it loads; needs the extra ``quant``. Adapters stay in float32.
        gradient_checkpointing: Whether to recompute blocks in the backward pass.
        revision: Revision of the hub repository.
        device: Device of the backbone; ``None``: torch's current default device.

    Raises:
        ValueError: If something can't be loaded or doesn't fit, naming it and what to do.
    """
    if trainable not in ("lora", "full", "none"):
        raise ValueError(f"trainable must be lora, full or none, got {trainable!r}")
    for name, value in (("quantize", quantize), ("teacher_lora", teacher_lora)):
        if value is not None and trainable == "full":
            raise ValueError(
                f"{name}={value!r} needs a frozen base, but trainable is 'full': train a LoRA, or leave it out"
            )
    place = torch.empty(0).device if device is None else torch.device(device)
    source = ModelSource(model, revision)
    meta = place.type == "meta"
    offline = meta or not weights
    transformer = _load_transformer(source, weights, getattr(torch, dtype), quantize, place)
    config = transformer.config
    family = family_of(config)
    adapter = None if lora_weights is None else _read_adapter(lora_weights, family, meta)
    # What an adapter was trained with comes before what its base says; without weights no hub is asked.
    if adapter is not None:
        record = adapter.record
    else:
        record = StudentRecord() if offline and source.kind == "hub" else source.record
    if guidance is None and config.guidance_embeds and not is_folded(config):
        guidance = record.guidance
    with torch.device("meta" if meta else "cpu"):
        if prompt is None:
            embedding = own_prompt(source, place, offline)
        elif meta and not Path(prompt).is_file():
            embedding = no_prompt(config, tokens=512)
        else:
            embedding = PromptEmbedding.load(prompt, "meta" if meta else "cpu")
        backbone = FluxBackbone(transformer, embedding, guidance, gradient_checkpointing)
        if not text_stream:
            backbone.drop_text_stream()
    backbone.quantization = quantize
    if weights:
        backbone.base = source.public_name
    if trainable == "none":  # else another model is trained, of which nothing is known yet
        backbone.source = record
    if adapter is not None:
        backbone.put_lora(adapter, "student", trainable=trainable == "lora")
    else:
        record.tell_differences(model, guidance=backbone.guidance, prompt_digest=backbone.prompt.digest)
        if trainable == "lora" or lora_weights is not None:
            backbone.add_lora(rank=lora_rank, alpha=lora_alpha, targets=lora_targets, trainable=trainable == "lora")
    if lora_weights is not None:
        backbone.default_role = "student"
    if trainable != "lora":
        backbone.requires_grad_(trainable == "full")
    if teacher_lora is not None:
        teacher = _read_adapter(teacher_lora, family, meta)
        if teacher is None:
            backbone.add_lora("teacher", rank=lora_rank, trainable=False)
        else:
            backbone.put_lora(teacher, "teacher", trainable=False)
    # A quantizer leaves its weights where it can work with them.
    return backbone if quantize is not None and device is None else backbone.to(place)


def _read_adapter(path: str, family: Family, meta: bool) -> LoraFile | None:
    """Read an adapter's file; on ``meta`` it may be one that is still to be made, ``None``."""
    if meta and not Path(path).exists():
        return None
    return read_lora(path, family, "meta" if meta else "cpu")


def _load_transformer(
    source: ModelSource, weights: bool, dtype: torch.dtype, quantize: Quantization | None, device: torch.device
) -> Any:
    meta = device.type == "meta"
    if quantize is not None and not meta and (not weights or source.is_file or source.kind == "architecture"):
        raise ValueError(f"quantize={quantize!r} takes a hub id or a folder in diffusers' layout, got {source.name!r}")
    config = source.transformer_config(offline=meta or not weights)
    family = family_of(config)
    kind = family.class_of(config)
    if meta or not weights:
        with torch.device("meta" if meta else "cpu"):  # random weights are the CPU's: a seed gives the same anywhere
            # Not the class's own: diffusers warns at every cast.
            return nn.Module.to(kind(**config), dtype)
    if source.is_file:
        state, _ = read_safetensors(source.local)
        with torch.device("meta"):
            transformer = kind(**config)
        # Copies: what was read may be views of the mapped file, which somebody may write anew.
        transformer.load_state_dict({key: tensor.to(dtype, copy=True) for key, tensor in state.items()}, assign=True)
        return transformer
    how: dict[str, Any] = {"subfolder": source.subfolder("transformer"), "revision": source.revision}
    if quantize is not None:
        how["quantization_config"] = quantization_config(quantize, family)
    with source.explain(), torch.device("cpu"):
        return own_memory(kind.from_pretrained(source.name, torch_dtype=dtype, **how))
