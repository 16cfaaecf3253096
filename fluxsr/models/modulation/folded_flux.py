"""The transformer that :mod:`fluxsr.models.modulation.fold` makes: FLUX whose modulation layers are constants."""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  # pipelines look for it beside a component's class
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn

from fluxsr.models.prompts import PromptEmbedding

# The AdaLN linears: two in a double-stream block, one in a single-stream block, one before the last projection.
MODULATION = re.compile(
    r"(transformer_blocks\.\d+\.norm1(_context)?|single_transformer_blocks\.\d+\.norm|norm_out)\.linear"
)
# What works on text tokens alone, inside a double-stream block.
_TEXT_STREAM = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out", "ff_context")


class Constant(nn.Module):
    """A layer that gives ``value`` ``(1, n)`` whatever comes in."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", torch.zeros(1, features))

    def forward(self, _: Tensor) -> Tensor:
        """Return the constant."""
        return self.value


class _Nothing(nn.Module):
    """Stands for an embedder that is not needed: zeros, of ``features`` channels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:2], self.features)


class FoldedFluxTransformer(FluxTransformer2DModel):
    """``FluxTransformer2DModel`` at one time, guidance and prompt, without the layers that only depend on these.

    A model of diffusers in all else: ``save_pretrained``, ``from_pretrained`` with a ``quantization_config``,
    ``compile_repeated_blocks`` and pipelines work as ever. It holds its prompt, and refuses any other input than its own.

    Made by :func:`fluxsr.models.fold_modulation` and :func:`fluxsr.models.load_folded`. The constructor builds the whole
    FLUX before it removes layers, so at full size call it under ``torch.device("meta")``, as ``from_pretrained`` does.

    Args:
        patch_size: this and the next ten as in ``FluxTransformer2DModel``.
        in_channels: see there.
        out_channels: see there.
        num_layers: see there.
        num_single_layers: see there.
        attention_head_dim: see there.
        num_attention_heads: see there.
        joint_attention_dim: see there.
        pooled_projection_dim: see there.
        guidance_embeds: see there.
        axes_dims_rope: see there.
        t: the time, 0 data and 1 noise.
        guidance: the guidance scale, for a model with guidance embedding.
        text: the prompt, for people.
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
        for name, module in list(self.named_modules()):
            if MODULATION.fullmatch(name):
                self.set_submodule(name, Constant(module.out_features))
        # The constants ignore what is embedded here, so a scalar zero per image will do.
        self.set_submodule("time_text_embed", _Nothing(1))
        if text_tokens == 0:
            self.set_submodule("context_embedder", _Nothing(self.inner_dim))
            for block in self.transformer_blocks:
                for name in _TEXT_STREAM:
                    block.set_submodule(name, nn.Identity())
        self.prompt_embeds: Tensor
        self.pooled_prompt_embeds: Tensor
        self.register_buffer("prompt_embeds", torch.zeros(1, text_tokens, joint_attention_dim))
        self.register_buffer("pooled_prompt_embeds", torch.zeros(1, pooled_projection_dim))

    @property
    def prompt(self) -> PromptEmbedding:
        """The prompt that the constants were computed with."""
        return PromptEmbedding(self.prompt_embeds, self.pooled_prompt_embeds, self.config["text"])

    def conditions(
        self, prompt: PromptEmbedding | None, guidance: float | None
    ) -> tuple[PromptEmbedding, float | None]:
        """Return the model's own prompt and guidance; ``None`` means these.

        Raises:
            ValueError: if others are asked for.
        """
        if guidance is not None and guidance != self.config["guidance"]:
            raise ValueError(
                f"this model was folded at guidance {self.config['guidance']}, got {guidance}; fold it again"
            )
        if prompt is not None:
            self._check_prompt(prompt.prompt_embeds, prompt.pooled_prompt_embeds)
        return self.prompt, self.config["guidance"]

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
            ValueError: for a time, guidance or prompt that the constants were not computed with.
        """
        # Compared before diffusers casts and multiplies them: neighboring times are one and the same in bfloat16.
        for name, given, own in (("t", timestep, self.config["t"]), ("guidance", guidance, self.config["guidance"])):
            wrong = [] if given is None or given.is_meta else given[given != given.new_tensor(own or 0.0)].tolist()
            if wrong:
                raise ValueError(
                    f"this model was folded at {name} = {own}, got {wrong[0]:g}; fold it again for another"
                )
        self._check_prompt(encoder_hidden_states, pooled_projections)
        return super().forward(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            **kwargs,
        )

    def _check_prompt(self, embeds: Tensor, pooled: Tensor) -> None:
        for given, own in ((embeds, self.prompt_embeds), (pooled, self.pooled_prompt_embeds)):
            # On meta there is nothing to compare but shapes.
            same = given.shape[1:] == own.shape[1:] and (
                given.is_meta or own.is_meta or bool((given.to(own) == own).all())
            )
            if not same:
                raise ValueError(
                    f"this model was folded with the prompt {self.config['text']!r} ({self.config['text_tokens']} tokens), "
                    "and another was given; fold it again for another"
                )
