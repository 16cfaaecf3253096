"""Finds and loads a student: the shipped one, a trained file, a pipeline's folder, or an adapter on a base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fluxsr.models import FluxBackbone, PixelAutoencoder, load_flux
from fluxsr.models.autoencoders import load_fitting_autoencoder
from fluxsr.models.encoder_lora import encoder_lora_of
from fluxsr.models.known_names import base_of, license_of, model_or_shipped
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import StudentRecord, read_record

# What a model sees at a time, in pixels: the crops that nano students and the images that FLUX were trained on.
NANO_WINDOW = 128
FLUX_WINDOW = 1024


class Student(NamedTuple):
    """A super-resolver that is known and not loaded yet: all that load or export one ask here."""

    source: ModelSource
    lora: str | None
    record: StudentRecord

    @property
    def start_time(self) -> float:
        """Time of the LR latents."""
        assert self.record.start_time is not None, "find_student has checked it"
        return self.record.start_time

    @property
    def encoder_lora(self) -> str | None:
        """The file that adapts the autoencoder's encoder, if there is one."""
        own = self.lora if self.lora is not None else self.source.path if self.source.is_file else None
        return encoder_lora_of(own, self.record.encoder_lora)

    def backbone(self, prompt: str | None, dtype: str, device: torch.device | str = "cpu") -> FluxBackbone:
        """Load the velocity model; on ``meta`` without a weight."""
        return load_flux(
            self.source.name,
            trainable="none",
            lora_weights=self.lora,
            prompt=prompt,
            guidance=self.record.guidance,
            dtype=dtype,
            revision=self.source.revision,
            device=device,
        ).eval()

    def autoencoder(
        self, backbone: FluxBackbone, name: str | None, dtype: str, device: torch.device | str = "cpu"
    ) -> Any:
        """Load its autoencoder, with the adapter of its encoder fused; warn of another than it was trained with."""
        encoder = self.encoder_lora
        autoencoder: Any = load_fitting_autoencoder(
            backbone, self.source, name, record=self.record, dtype=dtype, encoder_lora=encoder, device=device
        )
        if encoder is None:
            self.record.tell_differences(self.lora or self.source.name, autoencoder=autoencoder.fingerprint())
        return autoencoder.eval()


def window_of(record: StudentRecord, autoencoder: Any) -> int:
    """Return the side in pixels of what a student sees at a time: as it says, or what its kind is trained on."""
    return record.window or (NANO_WINDOW if isinstance(autoencoder, PixelAutoencoder) else FLUX_WINDOW)


def find_student(
    model: str | Path | None,
    lora: str | Path | None = None,
    *,
    revision: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    guidance: float | None = None,
) -> Student:
    """Return where a super-resolver's weights are, and what is known of it: one answer for all that load one."""
    source = ModelSource(model_or_shipped(model, lora), revision)
    config = source.transformer_config()  # what is no model is said before what it lacks
    record = source.record if lora is None else read_record(lora)
    if not config["guidance_embeds"]:  # an adapter of a relative with guidance runs without
        record = replace(record, guidance=None)
    record = record.given(start_time=start_time, window=window, guidance=guidance)
    record.check_restores(lora or source.name)
    base = record.base or base_of(source.name, config)
    record = replace(record, base=base, license=license_of(base).name)
    return Student(source, None if lora is None else str(lora), record)
