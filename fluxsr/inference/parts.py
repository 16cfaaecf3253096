"""Loads the parts of an upscaler: of the shipped student, a trained file, a pipeline's folder, or an adapter on a base."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fluxsr.inference.form import MemoryPlan, choose_form, set_tiling
from fluxsr.inference.memory import memory_limit
from fluxsr.models import FluxBackbone, PixelAutoencoder, fold_modulation, load_flux
from fluxsr.models.architectures import base_of, license_of
from fluxsr.models.autoencoders import load_fitting_autoencoder
from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.encoder_lora import encoder_lora_of
from fluxsr.models.known_names import model_or_shipped
from fluxsr.models.modulation.folding import is_folded
from fluxsr.models.quantization import quantize_int8
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import StudentRecord, read_record

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
        record: What the student is besides its weights.
    """

    velocity: FluxBackbone
    autoencoder: Any
    start_time: float
    window: int | None
    device: torch.device
    memory_plan: MemoryPlan | None = None
    record: StudentRecord = StudentRecord()


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
    source, record = find_student(
        model, lora, revision=revision, start_time=start_time, window=window, guidance=guidance
    )
    dtype = dtype or ("bfloat16" if place.type != "cpu" and not source.is_file else "float32")
    check_dtype(dtype)
    parts = partial(_load, source, record, lora=lora, prompt=prompt, autoencoder=autoencoder, dtype=dtype)
    if memory is None:
        return parts(place)
    limit = memory_limit(memory, place)
    planned = parts(torch.device("meta"))
    plan = choose_form(
        planned.velocity, planned.autoencoder, planned.start_time, planned.window, limit, cuda=place.type == "cuda"
    )
    say(plan.words())
    return take_form(parts(torch.device("cpu")), plan, place)


def find_student(
    model: str | Path | None,
    lora: str | Path | None = None,
    *,
    revision: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    guidance: float | None = None,
) -> tuple[ModelSource, StudentRecord]:
    """Return where a super-resolver's weights are, and what is known of it: one answer for all that load one.

    Args:
        model: As for :func:`load_parts`; so are the others.
        lora: Adapter file. What it says counts, and nothing that its base says.
        revision: Revision of the hub repository.
        start_time: Given in place of what the file says.
        window: Likewise.
        guidance: Likewise.

    Raises:
        ValueError: If it is no transformer, a flow teacher, or the time of the LR latents is not known.
    """
    source = ModelSource(model_or_shipped(model, lora), revision)
    config = source.transformer_config()  # what is no model is said before what it lacks
    record = source.record if lora is None else read_record(lora)
    record = record.given(start_time=start_time, window=window, guidance=guidance)
    record.check_restores(lora or source.name)
    base = record.base or base_of(source.name, config)
    return source, replace(record, base=base, license=license_of(base).name)


def _load(
    source: ModelSource,
    record: StudentRecord,
    place: torch.device,
    *,
    lora: str | Path | None,
    prompt: str | Path | None,
    autoencoder: str | None,
    dtype: str,
) -> UpscalerParts:
    """Load the parts onto a device; on ``meta`` without a weight."""
    velocity = load_flux(
        source.name,
        trainable="none",
        lora_weights=None if lora is None else str(lora),
        prompt=None if prompt is None else str(prompt),
        guidance=record.guidance,
        dtype=dtype,
        revision=source.revision,
        device=place,
    )
    vae = student_autoencoder(velocity, source, record, lora, autoencoder, dtype=dtype, device=place)
    assert record.start_time is not None, "find_student has checked it"
    return UpscalerParts(velocity.eval(), vae.eval(), record.start_time, window_of(record, vae), place, record=record)


def student_autoencoder(
    velocity: FluxBackbone,
    source: ModelSource,
    record: StudentRecord,
    lora: str | Path | None,
    name: str | None,
    *,
    dtype: str,
    device: torch.device | str = "cpu",
) -> Any:
    """Load the autoencoder of a student, with the adapter of its encoder fused; warn of another than it was trained with."""
    student = lora if lora is not None else (source.path if source.is_file else None)
    encoder = encoder_lora_of(student, record.encoder_lora)
    vae: Any = load_fitting_autoencoder(
        velocity, source, name, record=record, dtype=dtype, encoder_lora=encoder, device=device
    )
    if encoder is None:
        record.tell_differences(lora or source.name, autoencoder=vae.fingerprint())
    return vae


def window_of(record: StudentRecord, autoencoder: Any) -> int:
    """Return the side in pixels of what a student sees at a time: as it says, or what its kind is trained on."""
    return record.window or (NANO_WINDOW if isinstance(autoencoder, PixelAutoencoder) else FLUX_WINDOW)


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
        quantize_int8(velocity.transformer, velocity.family)
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
