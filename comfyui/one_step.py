"""The node that restores latents through the FLUX that ComfyUI has loaded."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import latent_preview
import node_helpers
import torch
from comfy_api.latest import io
from torch import Tensor


class FlowSteps(comfy.samplers.Sampler):
    """Euler steps that begin at the latents themselves.

    ComfyUI's own samplers begin at ``sigma * noise + (1 - sigma) * latents``, which without noise is the latents made smaller;
    a FluxSR student was trained to see them as they are.

    Args:
        strength: Share of the way from the latents to the model's.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Return the restored latents; those that come in are scaled and shifted already."""
        x = latent_image
        for step, (t, s) in enumerate(pairwise(sigmas)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            denoised = model_wrap(x, t.expand(len(x)), **extra_args)  # x - t v
            if callback is not None:
                callback(step, denoised, x, len(sigmas) - 1)
            x = denoised if s == 0 else x + (s - t) * (x - denoised) / t
        return x if self.strength == 1 else latent_image + self.strength * (x - latent_image)


class OneStep(io.ComfyNode):
    """LR latents in, restored latents out, at the time that the student was trained at."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what the node looks like."""
        return io.Schema(
            node_id="FluxSROneStep",
            display_name="FluxSR: one step",
            category="sampling",
            description=(
                "One step of a FLUX that is loaded with a FluxSR adapter (Load LoRA): encode the enlarged image, connect its "
                "latent, decode what comes out. Ordinary samplers can't do this step."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Latent.Input("latent", tooltip="Of the image, enlarged to its final size and encoded."),
                io.Float.Input(
                    "start_time",
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="T_L, lr_time in training: in the metadata of the adapter as start_time.",
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.05),
                io.Int.Input("steps", default=1, min=1, max=64),
                io.Float.Input("guidance", default=3.5, min=0.0, max=100.0, step=0.1, tooltip="As in training."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Of FluxSR: prompt, with the file that was trained with; without it there is no text at all.",
                ),
            ],
            outputs=[io.Latent.Output("latent_out", display_name="LATENT")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        latent: dict[str, Any],
        start_time: float,
        strength: float,
        steps: int,
        guidance: float,
        positive: Any = None,
    ) -> io.NodeOutput:
        """Run the step in ComfyUI's own loading, hooks, previews and interruption.

        Raises:
            ValueError: if the model is no flow, or the latents are another model's.
        """
        samples = latent["samples"]
        if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
            raise ValueError("FluxSR: one step needs a flow model such as FLUX, and this model is another kind")
        channels = model.get_model_object("latent_format").latent_channels
        if samples.ndim != 4 or samples.shape[1] != channels:
            raise ValueError(
                f"the latent is {tuple(samples.shape)}, and this model wants (B, {channels}, h, w): encode the image with the "
                "model's own VAE"
            )
        if positive is None:
            model, positive = _without_text(model)
        guider = comfy.samplers.CFGGuider(model)
        conditioning = node_helpers.conditioning_set_values(positive, {"guidance": guidance})
        guider.inner_set_conds({"positive": conditioning})
        restored = guider.sample(
            torch.zeros_like(samples),
            samples,
            FlowSteps(strength),
            torch.linspace(start_time, 0.0, steps + 1),
            callback=latent_preview.prepare_callback(model, steps),
            disable_pbar=True,
        )
        restored = restored.to(comfy.model_management.intermediate_device())
        return io.NodeOutput({**latent, "samples": restored})


def _without_text(model: Any) -> tuple[Any, list[Any]]:
    """Return the model and a conditioning with which its image sees no text: what a student without a prompt was trained with.

    ComfyUI's FLUX refuses a text of no tokens. So there is one, of zeros, which no other token attends to.
    """
    config = model.model.model_config.unet_config
    patch = config.get("patch_size") or 1
    model = model.clone()
    before = model.model_options.get("model_function_wrapper")

    def hide_text(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        height, width = arguments["input"].shape[-2:]
        tokens = 1 + -(-height // patch) * -(-width // patch)
        mask = torch.zeros(1, tokens, tokens, device=arguments["input"].device)
        mask[:, 1:, 0] = -torch.inf
        arguments = {**arguments, "c": {**arguments["c"], "attention_mask": mask}}
        if before is not None:
            return before(apply_model, arguments)
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(hide_text)
    pooled = torch.zeros(1, config.get("vec_in_dim") or 1)
    return model, [[torch.zeros(1, 1, config["context_in_dim"]), {"pooled_output": pooled}]]
