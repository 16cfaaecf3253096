"""Writes the trained backbone in a form that needs no Lightning to load."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from fluxsr.models.encoder_lora import encoder_lora_path, save_encoder_lora
from fluxsr.models.weight_files import is_writer
from fluxsr.training.callbacks.ema import EMA
from fluxsr.training.checkpoints import resumed_from


class ExportBackbone(Callback):
    """Writes the backbone when training ends, and after each validation: its averaged weights if there is an :class:`EMA`.

    A LoRA is written as plain diffusers loads it; a backbone that was trained in full as one file that
    ``load_flux("file.safetensors")`` and ``Upscaler.from_pretrained`` load. The file is renamed into place, so a reader never
    sees half of one. An adapter of the autoencoder's encoder is written beside it, ``backbone_encoder.safetensors``, and the
    backbone's header names it. The files of an earlier run in the same place are moved to ``earlier-1``, ``earlier-2``, ...
    beside it; a run that resumes replaces its own.

    Args:
        path: File ending in ``.safetensors``; ``None``: ``backbone.safetensors`` in the trainer's ``default_root_dir``.
        dtype: Dtype of a full backbone's stored weights; float16 halves the file.

    Raises:
        ValueError: If ``path`` has another suffix.
    """

    def __init__(self, path: str | None = None, dtype: str = "float32") -> None:
        if path is not None and Path(path).suffix != ".safetensors":
            raise ValueError(f"path must end in .safetensors, got {path!r}")
        self.path = None if path is None else Path(path)
        self.dtype = dtype
        self._own = False  # whether the file in place is this run's

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Note whether this run goes on with one that wrote the file in place."""
        self._own = resumed_from() is not None

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the state so far; a validation runs on the averaged weights already."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.export(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the final state, and say where it is."""
        if (path := self.export(trainer, pl_module)) is not None:
            rank_zero_info(f"the trained model is {path}")

    def export(self, trainer: Trainer, pl_module: Any) -> Path | None:
        """Write the file, return its path: every process gathers, the first one writes. A ``fast_dev_run`` writes nothing."""
        lightning: Any = trainer  # sets these two outside the class
        if lightning.fast_dev_run:
            return None
        pl_module.check_finite()
        ema = next((callback for callback in lightning.callbacks if isinstance(callback, EMA)), None)
        with ema.averaged(pl_module) if ema is not None else nullcontext():
            record = pl_module.record
            path = self.path or Path(trainer.default_root_dir) / "backbone.safetensors"
            self._keep_earlier(path)
            if pl_module.adapted_encoder:
                record = replace(record, encoder_lora=save_encoder_lora(pl_module.autoencoder.vae, path))
            pl_module.backbone.save(path, dtype=self.dtype, record=record)
            return path

    def _keep_earlier(self, path: Path) -> None:
        """Move an earlier run's files out of the way, together: the one's header knows the other."""
        if not self._own and path.exists() and is_writer():
            folder = next(one for number in count(1) if not (one := path.parent / f"earlier-{number}").exists())
            folder.mkdir()
            for file in (path, encoder_lora_path(path)):
                if file.exists():
                    file.replace(folder / file.name)
            rank_zero_info(f"{path} was an earlier run's; it is {folder / path.name} now")
        self._own = True
