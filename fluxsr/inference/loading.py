"""Loading an upscaler: the shipped student, a trained file, a pipeline's folder, or an adapter on a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from fluxsr.inference.memory import check_dtype, choose_device
from fluxsr.inference.upscaler import ColorFix, Upscaler
from fluxsr.models import PixelAutoencoder, load_autoencoder, load_flux
from fluxsr.models.sources import SHIPPED, ModelSource, model_or_shipped
from fluxsr.models.weight_files import read_safetensors

# What a model sees at a time, in pixels: the crops that nano students and the images that FLUX were trained on.
NANO_WINDOW = 128
FLUX_WINDOW = 1024


def load_upscaler(
    model: str | Path | None = None,
    *,
    lora: str | Path | None = None,
    prompt: str | Path | None = None,
    guidance: float | None = None,
    autoencoder: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    tile: int | Literal["auto"] | None = "auto",
    color_fix: ColorFix = "wavelet",
    device: str = "auto",
    dtype: str | None = None,
    revision: str | None = None,
) -> Upscaler:
    """Load an :class:`Upscaler`.

    Args:
        model: ``nano-student`` (the default) or ``nano-flowsr``, both shipped; a ``.safetensors`` file that training or
            ``fluxsr export`` wrote; a folder or hub id of a FluxSR pipeline; or, with ``lora`` or ``start_time``, a base in
            diffusers' layout: a hub id (``black-forest-labs/FLUX.1-dev``) or a folder.
        lora: adapter file that training exported; ``model`` must name its base then.
        prompt: file of cached embeddings made by ``fluxsr prompt``, the one that was trained with.
        guidance: for models with a guidance embedding (FLUX.1-dev: 3.5).
        autoencoder: see :func:`fluxsr.models.load_autoencoder`; by default ``pixel`` for single files, the base's own else.
        start_time: time of the LR latents (``lr_time`` in training); by default what the file or pipeline says.
        window: see :class:`Upscaler`; by default what the file or pipeline says, else 128 pixels for models on pixels and 1024
            for those on FLUX's latents.
        tile: see :class:`Upscaler`.
        color_fix: see :class:`Upscaler`.
        device: auto, cpu, cuda or mps.
        dtype: of the weights; by default float32 for single files and on the CPU, bfloat16 for FLUX on a GPU.
        revision: of the hub repository.

    Raises:
        ValueError: if something can't be loaded, doesn't fit, or is not known, with what to do.
    """
    place = choose_device(device)
    name = model_or_shipped(model, lora)
    single_file = name in SHIPPED or name.endswith(".safetensors")
    dtype = dtype or ("bfloat16" if place.type != "cpu" and not single_file else "float32")
    check_dtype(dtype)
    if not single_file and lora is None and start_time is None:
        if prompt is not None or guidance is not None or autoencoder is not None:
            raise ValueError(
                f"{name}, without lora or start_time, is a pipeline, which has its own prompt, guidance and autoencoder"
            )
        return _load_pipeline(name, place, dtype, revision, tile=tile, color_fix=color_fix, window=window)
    facts = _facts(name, lora)
    if start_time is None and "start_time" not in facts:
        raise ValueError(
            f"{lora or name} does not say at which time the LR latents stand: give start_time (lr_time in training)"
        )
    velocity = load_flux(
        name,
        trainable="none",
        lora_weights=None if lora is None else str(lora),
        prompt=None if prompt is None else str(prompt),
        guidance=guidance,
        dtype=dtype,
        revision=revision,
    )
    own_vae = autoencoder is None and not single_file
    vae: Any = load_autoencoder(
        autoencoder or ("pixel" if single_file else name),
        subfolder="vae" if own_vae else None,
        revision=revision if own_vae else None,
        dtype=dtype,
    )
    if velocity.latent_channels != vae.latent_channels:
        raise ValueError(
            f"the model has {velocity.latent_channels} latent channels and the autoencoder {vae.latent_channels}: "
            "give the autoencoder that the model was trained with"
        )
    if window is None:
        window = int(facts.get("window", NANO_WINDOW if isinstance(vae, PixelAutoencoder) else FLUX_WINDOW))
    return Upscaler(
        velocity.eval().to(place),
        vae.eval().to(place),
        float(facts["start_time"]) if start_time is None else start_time,
        window=window,
        tile=tile,
        color_fix=color_fix,
        device=place,
    )


def _load_pipeline(
    name: str, place: torch.device, dtype: str, revision: str | None, *, window: int | None, **options: Any
) -> Upscaler:
    from fluxsr.inference.pipeline import FluxSRPipeline

    with ModelSource(name).explain():
        pipeline = FluxSRPipeline.from_pretrained(name, torch_dtype=getattr(torch, dtype), revision=revision)
    if window is not None:
        options["window"] = window
    return pipeline.to(place).upscaler(**options)


def _facts(model: str, lora: str | Path | None) -> dict[str, str]:
    """Return what a trained file's header tells of how it was trained."""
    if lora is not None:
        return read_safetensors(lora)[1]
    return ModelSource(model).metadata
