"""A super-resolver whose weights ComfyUI moves: onto the device when they are needed, off it when others need the room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from fluxsr.inference import Upscaler


class Networks(nn.Module):
    """A velocity model and an autoencoder as the one module that is moved."""

    def __init__(self, upscaler: Upscaler) -> None:
        super().__init__()
        self.velocity = upscaler.velocity
        self.autoencoder = upscaler.autoencoder
        self.device: torch.device | None = None  # ComfyUI writes here where the weights are


class WholePatcher(ModelPatcher):
    """ComfyUI's handle of a model that is on the device as a whole or not at all.

    Its own layers can be there in part; ours, which are diffusers', would fail with weights on two devices.
    """

    def partially_load(self, device_to: Any, extra_memory: float = 0, **options: Any) -> Any:
        """Load all of it, whatever room was left for it; where that is too little, torch says so."""
        return super().partially_load(device_to, 1e32, **options)

    def partially_unload(self, device_to: Any, memory_to_free: float = 0, **options: Any) -> int:
        """Free nothing, which makes ComfyUI take the whole model off."""
        return 0


@dataclass(frozen=True)
class HeldModel:
    """What the socket FLUXSR_MODEL carries.

    Attributes:
        upscaler: The networks and numbers.
        patcher: ComfyUI's handle of the networks; ``None`` where their own hooks move them.
    """

    upscaler: Upscaler
    patcher: WholePatcher | None

    @classmethod
    def of(cls, upscaler: Upscaler) -> HeldModel:
        """Return what lies in main memory, in ComfyUI's keeping from now on."""
        device = comfy.model_management.get_torch_device()
        patcher = WholePatcher(Networks(upscaler), load_device=device, offload_device=torch.device("cpu"))
        return cls(upscaler.changed(device=device), patcher)

    @classmethod
    def fitted(cls, upscaler: Upscaler) -> HeldModel:
        """Return what was made to fit a memory; those whose hooks move their weights are left to them."""
        plan = upscaler.memory_plan
        if plan is not None and plan.form.by_block:
            return cls(upscaler, None)
        return cls.of(upscaler)

    def to_device(self, activations: int) -> None:
        """Have the weights on the device, and ``activations`` bytes beside them free."""
        if self.patcher is not None:
            with torch.inference_mode(False):  # weights that were moved in that mode can't be moved outside of it
                comfy.model_management.load_models_gpu([self.patcher], memory_required=activations)
