"""Loads the parts of an upscaler: of the shipped student, a trained file, a pipeline's folder, or an adapter on a base."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fluxsr.inference.form import MemoryPlan, choose_form, set_tiling
from fluxsr.inference.memory import memory_limit
from fluxsr.models import FluxBackbone, PixelAutoencoder, fold_modulation, load_flux
from fluxsr.models.autoencoders import load_fitting_autoencoder
from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.encoder_lora import encoder_lora_of
from fluxsr.models.known_names import ASSETS, SHIPPED, model_or_shipped
from fluxsr.models.modulation.folding import is_folded
from fluxsr.models.prompts import PromptEmbedding
from fluxsr.models.quantization import quantize_int8
from fluxsr.models.sources import ModelSource
from fluxsr.models.weight_files import read_safetensors

logger = logging.getLogger(__name__)

# What a model sees at a time, in pixels: the crops that nano students and the images that FLUX were trained on.
NANO_WINDOW = 128
FLUX_WINDOW = 1024


class UpscalerParts(NamedTuple):
    """A super-resolver's networks and numbers.

    Attributes:
        velocity: The student.
        autoencoder: The autoencoder that it was trained with.
        start_time: Time of the LR latents.
        window: Side in pixels of what the model sees at a time; ``None``: as much as fits.
        device: Device that they are on, or compute on.
        memory_plan: Form that was chosen for a limited memory; ``None`` without a limit.
    """

    velocity: FluxBackbone
    autoencoder: Any
    start_time: float
    window: int | None
    device: torch.device
    memory_plan: MemoryPlan | None = None


def load_parts(
    model: str | Path | None = None,
    *,
    lora: str | Path | None = None,
    prompt: str | Path | None = None,
    guidance: float | None = None,
    autoencoder: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    device: str = "auto",
    dtype: DType | None = None,
    memory: str | None = None,
    revision: str | None = None,
    say: Callable[[str], None] = logger.info,
) -> UpscalerParts:
    """Load what an upscaler is made of.

    Args:
        model: Model to load. ``nano-student`` (the default) and ``nano-flowsr`` are shipped. It can be a ``.safetensors`` file
            that training or ``fluxsr export`` wrote, or a folder or hub id of a FluxSR pipeline. With ``lora`` or
            ``start_time`` it can be a base in diffusers' layout: a hub id (``black-forest-labs/FLUX.1-dev``) or a folder.
        lora: Adapter file that training exported; ``model`` must then name its base.
        prompt: File of cached embeddings made by ``fluxsr prompt``, the one used in training.
        guidance: Guidance scale of models with a guidance embedding (FLUX.1-dev: 3.5).
        autoencoder: ``pixel``, a hub id or a folder (default: its own).
        start_time: Time of the LR latents (``lr_time`` in training); by default what the file or pipeline says.
        window: Side in pixels of what the model sees at a time; by default what the file or pipeline says, else 128 for models
            on pixels and 1024 for those on FLUX's latents.
        device: Device: auto, cuda, mps or cpu.
        dtype: Dtype of the weights; by default float32 for single files and on the CPU, bfloat16 for FLUX on a GPU.
        memory: Memory to fit into: 12GB, or auto for what is free.
        revision: Revision of the hub repository.
        say: Called, before anything is loaded, with what was chosen for ``memory``, and the expected peak.

    Raises:
        ValueError: If something can't be loaded, doesn't fit, or is not known, with what to do.
    """
    place = choose_device(device)
    source = ModelSource(model_or_shipped(model, lora), revision)
    dtype = dtype or ("bfloat16" if place.type != "cpu" and not source.is_file else "float32")
    check_dtype(dtype)
    parts = partial(
        _load, source, lora=lora, prompt=prompt, guidance=guidance, autoencoder=autoencoder, start_time=start_time,
        window=window, dtype=dtype,
    )  # fmt: skip
    if memory is None:
        return parts(place)
    limit = memory_limit(memory, place)
    planned = parts(torch.device("meta"))
    plan = choose_form(
        planned.velocity, planned.autoencoder, planned.start_time, planned.window, limit, cuda=place.type == "cuda"
    )
    say(plan.words())
    return take_form(parts(torch.device("cpu")), plan, place)


def _load(
    source: ModelSource,
    place: torch.device,
    *,
    lora: str | Path | None,
    prompt: str | Path | None,
    guidance: float | None,
    autoencoder: str | None,
    start_time: float | None,
    window: int | None,
    dtype: str,
) -> UpscalerParts:
    """Load the parts onto a device; on ``meta`` without a weight."""
    if source.kind in ("pipeline", "hub") and lora is None and start_time is None:
        if prompt is not None or guidance is not None or autoencoder is not None:
            raise ValueError(
                f"{source.name}, without lora or start_time, is a pipeline, which has its own prompt, guidance and autoencoder"
            )
        return _pipeline_parts(source, window, place, dtype)
    facts = source.metadata if lora is None else read_safetensors(lora, "meta")[1]
    source.transformer_config()  # what is no model is said before what it lacks
    if start_time is None and "start_time" not in facts:
        raise ValueError(
            f"{lora or source.name} does not say at which time the LR latents stand: give start_time (lr_time in training)"
        )
    _refuse_teacher(source, facts, lora, start_time)
    velocity = load_flux(
        source.name,
        trainable="none",
        lora_weights=None if lora is None else str(lora),
        prompt=None if prompt is None else str(prompt),
        guidance=guidance,
        dtype=dtype,
        revision=source.revision,
        device=place,
    )
    student = lora if lora is not None else (source.path if source.is_file else None)
    encoder = encoder_lora_of(student, facts)
    vae: Any = load_fitting_autoencoder(velocity, source, autoencoder, dtype=dtype, encoder_lora=encoder, device=place)
    if window is None:
        window = int(facts.get("window", NANO_WINDOW if isinstance(vae, PixelAutoencoder) else FLUX_WINDOW))
    time = float(facts["start_time"]) if start_time is None else start_time
    return UpscalerParts(velocity.eval(), vae.eval(), time, window, place)


def take_form(parts: UpscalerParts, plan: MemoryPlan, place: torch.device) -> UpscalerParts:
    """Return parts that lie in main memory in the form that was planned, on the device that computes.

    Args:
        parts: The networks, on the CPU.
        plan: Form that :func:`fluxsr.inference.form.choose_form` chose for them.
        place: The device.
    """
    velocity, autoencoder, form = parts.velocity, parts.autoencoder, plan.form
    if form.folded and not is_folded(velocity.transformer.config):
        velocity = fold_modulation(velocity, parts.start_time, fuse=True)
    parts = parts._replace(velocity=velocity)  # the whole one is free to go
    if form.quantize is not None:
        quantize_int8(velocity.transformer)
        velocity.quantization = form.quantize
    set_tiling(autoencoder, form.tiled)
    if form.by_block:
        from diffusers.hooks.group_offloading import apply_group_offloading

        stream = place.type == "cuda"
        how: dict[str, Any] = {"num_blocks_per_group": 1, "use_stream": stream, "non_blocking": stream}
        apply_group_offloading(velocity.transformer, onload_device=place, offload_type="block_level", **how)
        for name, buffer in list(velocity.named_buffers(recurse=False)):
            velocity.register_buffer(name, buffer.to(place), persistent=False)
    else:
        velocity.to(place)
    return parts._replace(autoencoder=autoencoder.to(place), window=plan.window, device=place, memory_plan=plan)


def _refuse_teacher(
    source: ModelSource, facts: Mapping[str, str], lora: str | Path | None, start_time: float | None
) -> None:
    """Refuse a model that makes pictures of noise: of a photo it makes a garish one.

    Raises:
        ValueError: Saying which models upscale.
    """
    shipped = ASSETS / SHIPPED["nano"]
    is_shipped = source.name == "nano" or (source.is_file and Path(source.name).resolve() == shipped.resolve())
    if facts.get("objective") == "FlowMatching" or (is_shipped and lora is None and start_time is None):
        raise ValueError(
            f"{lora or source.name} is a flow teacher, which makes pictures of noise and upscales none: give a student "
            "(nano-student, nano-flowsr, or what training made), or this one as the base of an adapter (lora)"
        )


def _pipeline_parts(source: ModelSource, window: int | None, place: torch.device, dtype: str) -> UpscalerParts:
    """Load what :class:`fluxsr.inference.pipeline.FluxSRPipeline` wrote."""
    numbers = source.pipeline_config()
    velocity = load_flux(
        source.name,
        trainable="none",
        guidance=numbers.get("guidance"),
        dtype=dtype,
        revision=source.revision,
        device=place,
    )
    if numbers.get("prompt", [None])[0] is not None:
        config = source.read_json("prompt/config.json")
        tensors, _ = read_safetensors(source.file("prompt/diffusion_pytorch_model.safetensors"))
        velocity.set_prompt(
            PromptEmbedding(tensors["prompt_embeds"], tensors.get("pooled_prompt_embeds"), config.get("text", ""))
        )
    if numbers.get("vae", [None])[0] is not None:
        vae: Any = load_fitting_autoencoder(velocity, source, dtype=dtype, device=place)
    else:
        vae = PixelAutoencoder(*(numbers[f"pixel_{name}"] for name in ("downsample", "shift", "scale")))
    window = numbers.get("window") if window is None else window
    return UpscalerParts(velocity.eval(), vae.eval(), numbers["start_time"], window, place)
