"""The node that loads a super-resolver."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from fluxsr.inference import Upscaler
from fluxsr.models.known_names import model_or_shipped

from . import files
from .held import HeldModel

FluxSRModel = io.Custom("FLUXSR_MODEL")
AUTO = "auto"
COMFYUI = "comfyui"  # all of the model on the device when it is used, and off it when ComfyUI needs the room


class LoadModel(io.ComfyNode):
    """A shipped student, a file or pipeline folder of models/fluxsr, or a base with an adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what the node looks like."""
        return io.Schema(
            node_id="FluxSRLoadModel",
            display_name="FluxSR: load model",
            category="image/upscaling",
            description="Loads a one-step super-resolver: one that comes with fluxsr, or one of models/fluxsr.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=files.model_names(),
                    default=model_or_shipped(None, None),
                    tooltip="Shipped, or a .safetensors file or a folder in diffusers' layout below models/fluxsr.",
                ),
                io.Combo.Input(
                    "lora",
                    options=files.adapter_names(),
                    default=files.NONE,
                    tooltip="Adapter that training exported; the model must be its base then.",
                ),
                io.Combo.Input(
                    "prompt",
                    options=files.file_names(),
                    default=files.NONE,
                    tooltip="File of `fluxsr prompt` that the adapter was trained with. A pipeline folder has its own.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of bases with a guidance embedding (FLUX.1-dev: 3.5); 0: none.",
                ),
                io.Combo.Input("dtype", options=[AUTO, "float32", "bfloat16", "float16"], default=AUTO),
                io.Combo.Input(
                    "memory",
                    options=[COMFYUI, AUTO, "8GB", "12GB", "16GB", "24GB"],
                    default=COMFYUI,
                    tooltip="Fold, quantize or bring block by block what is too large for so much memory; auto: what is free.",
                ),
                io.Float.Input(
                    "start_time",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="Time of the LR latents (lr_time in training), of a model that does not say it; 0: as it says.",
                ),
            ],
            outputs=[FluxSRModel.Output("fluxsr_model", display_name="FLUXSR_MODEL")],
        )

    @classmethod
    def execute(
        cls, model: str, lora: str, prompt: str, guidance: float, dtype: str, memory: str, start_time: float = 0.0
    ) -> io.NodeOutput:
        """Load it into main memory; the device gets it when it is used."""
        options: dict[str, Any] = {"lora": files.path_of(lora), "prompt": files.path_of(prompt)}
        options |= {"guidance": guidance or None, "dtype": None if dtype == AUTO else dtype}
        options["start_time"] = start_time or None
        path = files.path_of(model)
        on_cpu = comfy.model_management.is_device_cpu(comfy.model_management.get_torch_device())
        if dtype == AUTO and not on_cpu and path is not None and Path(path).is_dir():
            options["dtype"] = "bfloat16"  # FLUX; single files are small models in float32
        with torch.inference_mode(False):
            if memory == COMFYUI:
                return io.NodeOutput(HeldModel.of(Upscaler.from_pretrained(path, device="cpu", **options)))
            device = str(comfy.model_management.get_torch_device())
            if not on_cpu:
                comfy.model_management.free_memory(1e30, torch.device(device))
            upscaler = Upscaler.from_pretrained(path, device=device, memory=memory, say=logging.info, **options)
        return io.NodeOutput(HeldModel.fitted(upscaler))
