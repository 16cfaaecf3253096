"""The node that reads a cached prompt."""

from __future__ import annotations

from comfy_api.latest import io

from fluxsr.models import PromptEmbedding

from . import files


class Prompt(io.ComfyNode):
    """The embedding that a student was trained with, of as many tokens: no text encoder has to be loaded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what the node looks like."""
        return io.Schema(
            node_id="FluxSRPrompt",
            display_name="FluxSR: prompt",
            category="conditioning",
            description="Reads what `fluxsr prompt` wrote, for FluxSR: one step. The text encoders are not needed.",
            inputs=[io.Combo.Input("file", options=files.file_names(), tooltip="Below models/fluxsr.")],
            outputs=[io.Conditioning.Output("conditioning", display_name="CONDITIONING")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        """Read it.

        Raises:
            ValueError: if no file is chosen, or it is no such file.
        """
        path = files.path_of(file)
        if path is None:
            raise ValueError("choose the file that `fluxsr prompt` wrote: it belongs below models/fluxsr")
        embedding = PromptEmbedding.load(path)
        pooled = embedding.pooled_prompt_embeds  # FLUX.2 has none
        further = {} if pooled is None else {"pooled_output": pooled.float()}
        return io.NodeOutput([[embedding.prompt_embeds.float(), further]])
