"""Defines the transformers that :mod:`fluxsr.models.modulation.fold` makes: FLUX whose modulation layers are constants."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  # pipelines look for it beside a component's class
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor

from fluxsr.models.families import FLUX1
from fluxsr.models.modulation.folding import Folded, fold_layers


class FoldedFluxTransformer(Folded, FluxTransformer2DModel):  # type: ignore[misc]  # so does diffusers combine classes
    """``FluxTransformer2DModel`` at one time, guidance and prompt, without the layers that only depend on these.

    A model of diffusers in all else: ``save_pretrained``, ``from_pretrained`` with a ``quantization_config``,
    ``compile_repeated_blocks`` and pipelines work as ever. It holds its prompt, and refuses any other input than its own.

    Made by :func:`fluxsr.models.fold_modulation` and :func:`fluxsr.models.load_folded`. The constructor builds the whole
    FLUX before it removes layers, so at full size call it under ``torch.device("meta")``, as ``from_pretrained`` does.

    Args:
        patch_size: This and the next ten as in ``FluxTransformer2DModel``.
        in_channels: See there.
        out_channels: See there.
        num_layers: See there.
        num_single_layers: See there.
        attention_head_dim: See there.
        num_attention_heads: See there.
        joint_attention_dim: See there.
        pooled_projection_dim: See there.
        guidance_embeds: See there.
        axes_dims_rope: See there.
        t: The time, 0 data and 1 noise.
        guidance: The guidance scale, for a model with guidance embedding.
        text: The prompt, for people.
        text_tokens: Number of the prompt's tokens. With 0, nothing ever flows through the text stream, and it is left out too.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 1,
        in_channels: int = 64,
        out_channels: int | None = None,
        num_layers: int = 19,
        num_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        pooled_projection_dim: int = 768,
        guidance_embeds: bool = False,
        axes_dims_rope: tuple[int, int, int] = (16, 56, 56),
        t: float = 0.25,
        guidance: float | None = None,
        text: str = "",
        text_tokens: int = 0,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=num_layers,
            num_single_layers=num_single_layers,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            joint_attention_dim=joint_attention_dim,
            pooled_projection_dim=pooled_projection_dim,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=axes_dims_rope,
        )
        fold_layers(self, FLUX1, text_tokens, joint_attention_dim)
        self.register_buffer("pooled_prompt_embeds", torch.zeros(1, pooled_projection_dim))

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run as diffusers' model does, which explains the arguments.

        Raises:
            ValueError: For a time, guidance or prompt that the constants were not computed with.
        """
        self.check_numbers(timestep, guidance)
        self.check_prompt(encoder_hidden_states, pooled_projections)
        return super().forward(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            **kwargs,
        )
