"""FluxSR in ComfyUI: photos upscaled in one step. ComfyUI calls :func:`comfy_entrypoint`; everything else follows from it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .load_model import LoadModel
from .one_step import OneStep
from .prompt import Prompt
from .upscale import Upscale


class FluxSRExtension(ComfyExtension):
    """The nodes of this pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the node classes."""
        return [LoadModel, Upscale, OneStep, Prompt]


async def comfy_entrypoint() -> FluxSRExtension:
    """Return the extension; ComfyUI looks for this name."""
    return FluxSRExtension()
