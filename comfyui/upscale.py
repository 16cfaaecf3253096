"""The node that upscales images."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from fluxsr.inference.memory import bytes_per_pixel

from .held import HeldModel
from .load_model import FluxSRModel

_LARGEST_TILE = 1024  # what Upscaler chooses where there is room


class Upscale(io.ComfyNode):
    """Any size, any factor, in bounded memory, as ``fluxsr.inference.Upscaler`` does it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what the node looks like."""
        return io.Schema(
            node_id="FluxSRUpscale",
            display_name="FluxSR: upscale image",
            category="image/upscaling",
            description="Upscales by any factor in one step. Nothing is drawn at random, so there is no seed.",
            inputs=[
                FluxSRModel.Input("fluxsr_model"),
                io.Image.Input("image"),
                io.Float.Input(
                    "scale", default=4.0, min=0.0, max=32.0, step=0.1, tooltip="0: what the model was trained for."
                ),
                io.Int.Input("width", default=0, min=0, max=65536, tooltip="In pixels, instead of scale; 0: free."),
                io.Int.Input("height", default=0, min=0, max=65536, tooltip="In pixels, instead of scale; 0: free."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0: the input, only enlarged; 1: what the model was trained for; above: more than that.",
                ),
                io.Int.Input("steps", default=1, min=1, max=64),
                io.Int.Input("tile", default=0, min=0, max=16384, tooltip="Pixels computed at a time; 0: chosen."),
                io.Combo.Input("color_fix", options=["wavelet", "adain", "none"], default="wavelet"),
                io.Mask.Input("mask", optional=True, tooltip="Transparency, as Load Image gives it; enlarged with it."),
            ],
            outputs=[
                io.Image.Output("image_out", display_name="IMAGE"),
                io.Mask.Output("mask_out", display_name="MASK"),
            ],
        )

    @classmethod
    def execute(
        cls,
        fluxsr_model: HeldModel,
        image: Tensor,
        scale: float,
        width: int,
        height: int,
        strength: float,
        steps: int,
        tile: int,
        color_fix: str,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Upscale each image of the batch; ComfyUI's Cancel ends it after the windows at hand."""
        upscaler = fluxsr_model.upscaler.changed(tile=tile or "auto", color_fix=color_fix)
        fluxsr_model.to_device(bytes_per_pixel(upscaler.velocity, upscaler.autoencoder) * (tile or _LARGEST_TILE) ** 2)
        size = (height, width) if height and width else None
        bar = comfy.utils.ProgressBar(len(image))
        results = []
        for number, one in enumerate(_with_alpha(image, mask)):

            def progress(done: int, total: int, number: int = number) -> None:
                comfy.model_management.throw_exception_if_processing_interrupted()
                bar.update_absolute(number * total + done, len(image) * total)

            results.append(
                upscaler(
                    one,
                    scale or None,
                    size,
                    steps,
                    progress,
                    width=None if size else width or None,
                    height=None if size else height or None,
                    strength=strength,
                )
            )
        pixels = torch.stack(results).movedim(1, -1)
        if image.shape[-1] == 3 and pixels.shape[-1] == 4:
            return io.NodeOutput(pixels[..., :3].contiguous(), 1 - pixels[..., 3])
        alpha = pixels[..., 3] if pixels.shape[-1] == 4 else torch.ones_like(pixels[..., 0])
        return io.NodeOutput(pixels.contiguous(), 1 - alpha)


def _with_alpha(image: Tensor, mask: Tensor | None) -> Tensor:
    """Return images ``(B, H, W, C)`` as ``(B, C, H, W)`` on the CPU, with a mask ``(B, H, W)`` as their alpha.

    Raises:
        ValueError: if the mask is another image's.
    """
    image = image.float().cpu()
    # Load Image gives a small empty mask where there is no transparency.
    if mask is None or image.shape[-1] == 4 or (mask.shape[-2:] != image.shape[1:3] and not mask.any()):
        return image.movedim(-1, 1).clamp(0, 1)
    mask = mask.float().cpu()
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.shape[-2:] != image.shape[1:3] or len(mask) not in (1, len(image)):
        raise ValueError(
            f"the mask is {tuple(mask.shape)} and the image {tuple(image.shape[:3])}: connect the mask of the same Load Image"
        )
    alpha = 1 - mask.expand(len(image), -1, -1)
    return torch.cat([image, alpha[..., None]], dim=-1).movedim(-1, 1).clamp(0, 1)
