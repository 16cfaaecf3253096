"""Loads a FLUX backbone from any source, onto any device; on meta it needs no weight and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fluxsr.models.families import family_of, is_folded
from fluxsr.models.flux import FluxBackbone
from fluxsr.models.prompts import PromptEmbedding, no_prompt, own_prompt
from fluxsr.models.quantization import Quantization, quantization_config
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import StudentRecord, read_record
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
    if quantize is not None and trainable == "full":
        raise ValueError(
            f"quantize={quantize!r} needs a frozen base, but trainable is 'full': train a LoRA, or don't quantize"
        )
    if teacher_lora is not None and trainable == "full":
        raise ValueError(
            f"teacher_lora={teacher_lora!r} needs a frozen base, but trainable is 'full'; give OneStepSR a teacher instead"
        )
    place = torch.empty(0).device if device is None else torch.device(device)
    source = ModelSource(model, revision)
    meta = place.type == "meta"
    adapted = lora_weights is not None and not (meta and not Path(lora_weights).exists())
    # What an adapter was trained with comes before what its base says; without weights no hub is asked.
    offline = meta or not weights
    record = read_record(lora_weights) if adapted and lora_weights is not None else _record_of(source, offline)
    transformer = _load_transformer(source, weights, getattr(torch, dtype), quantize, place)
    config: Any = transformer.config
    if guidance is None and config.guidance_embeds and not is_folded(config):
        guidance = record.guidance
    with torch.device("meta" if meta else "cpu"):
        embedding = (
            _load_prompt(prompt, transformer, place) if prompt is not None else own_prompt(source, place, offline)
        )
        backbone = FluxBackbone(transformer, embedding, guidance, gradient_checkpointing)
        if not text_stream:
            backbone.drop_text_stream()
    backbone.quantization = quantize
    if weights:
        backbone.base, backbone.revision = source.public_name, revision or ""
    if trainable == "none":  # else another model is trained, of which nothing is known yet
        backbone.source = record
    if not adapted:
        record.tell_differences(model, guidance=backbone.guidance, prompt_digest=backbone.prompt.digest)
    if lora_weights is not None:
        _load_adapter(backbone, lora_weights, "student", trainable == "lora", lora_rank)
        backbone.default_role = "student"
    elif trainable == "lora":
        backbone.add_lora(rank=lora_rank, alpha=lora_alpha, targets=lora_targets)
    if trainable != "lora":
        backbone.requires_grad_(trainable == "full")
    if teacher_lora is not None:
        _load_adapter(backbone, teacher_lora, "teacher", False, lora_rank)
    # A quantizer leaves its weights where it can work with them.
    return backbone if quantize is not None and device is None else backbone.to(place)


def _load_transformer(
    source: ModelSource, weights: bool, dtype: torch.dtype, quantize: Quantization | None, device: torch.device
) -> nn.Module:
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
    if source.is_file and source.path is not None:
        state, _ = read_safetensors(source.path)
        with torch.device("meta"):
            transformer: nn.Module = kind(**config)
        # Copies: what was read may be views of the mapped file, which somebody may write anew.
        transformer.load_state_dict({key: tensor.to(dtype, copy=True) for key, tensor in state.items()}, assign=True)
        return transformer
    how = {} if quantize is None else {"quantization_config": quantization_config(quantize, family)}
    where: dict[str, Any] = {"subfolder": source.transformer_subfolder(), "revision": source.revision}
    with source.explain(), torch.device("cpu"):
        return own_memory(kind.from_pretrained(source.name, torch_dtype=dtype, **where, **how))


def _record_of(source: ModelSource, offline: bool) -> StudentRecord:
    """Return what a source says of a trained model; where it can't be asked, nothing."""
    return StudentRecord() if offline and source.kind == "hub" else source.record


def _load_prompt(path: str, transformer: nn.Module, device: torch.device) -> PromptEmbedding:
    if device.type != "meta" or Path(path).is_file():
        return PromptEmbedding.load(path, "meta" if device.type == "meta" else "cpu")
    return no_prompt(transformer.config, tokens=512)


def _load_adapter(backbone: FluxBackbone, path: str, role: str, trainable: bool, rank: int) -> None:
    if backbone.prompt_embeds.is_meta and not Path(path).exists():
        backbone.add_lora(role, rank=rank, trainable=trainable)
    else:
        backbone.load_lora(path, role, trainable=trainable)
