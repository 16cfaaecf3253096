"""Defines the transformers that :mod:`fluxsr.models.folding` makes: models whose modulation layers are constants.

In all else they are models of diffusers: ``save_pretrained``, ``from_pretrained`` with a ``quantization_config``,
``compile_repeated_blocks`` and pipelines work as ever. They hold their prompt, and refuse any other input than their own. A
constructor builds the whole model before it removes layers, so at full size it is called under ``torch.device("meta")``, as
``from_pretrained`` does.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  # pipelines look for it beside a component's class
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from torch import Tensor

from fluxsr.models.families import FLUX1, FLUX2, Family
from fluxsr.models.prompts import PromptEmbedding
from fluxsr.models.stand_ins import Constant, Nothing, drop_text_stream


class Folded:
    """Mixed into a class of diffusers: what a folded transformer holds, and what it refuses.

    A class that it is mixed into takes the arguments of diffusers' and four more: ``t``, the time (0 data, 1 noise);
    ``guidance``, the guidance scale of a model with guidance embedding; ``text``, the prompt, for people; ``text_tokens``, the
    number of the prompt's tokens. With 0 of them nothing ever flows through the text stream, and it is left out, too.
    """

    family: ClassVar[Family]
    config: Any
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None

    def __init_subclass__(cls) -> None:
        """Give the class a constructor that names every argument: diffusers reads from it what a configuration may hold."""
        super().__init_subclass__()
        of_diffusers: Any = cls.__mro__[2].__init__  # type: ignore[misc]

        def __init__(
            self: Any, *, t: float, guidance: float | None = None, text: str = "", text_tokens: int = 0, **whole: Any
        ) -> None:
            of_diffusers(self, **whole)
            self.register_to_config(t=t, guidance=guidance, text=text, text_tokens=text_tokens)
            for name, module in list(self.named_modules()):
                if cls.family.modulation.fullmatch(name):
                    self.set_submodule(name, Constant(module.out_features))
            # The constants ignore what is embedded here, so a scalar zero per image will do.
            self.set_submodule(cls.family.embedder, Nothing(1))
            if text_tokens == 0:
                drop_text_stream(self, cls.family)
            self.register_buffer("prompt_embeds", torch.zeros(1, text_tokens, self.config["joint_attention_dim"]))
            pooled = self.config.get("pooled_projection_dim")
            self.register_buffer("pooled_prompt_embeds", None if pooled is None else torch.zeros(1, pooled))

        own = inspect.signature(__init__).parameters
        theirs = inspect.signature(of_diffusers).parameters
        named = {name: one for name, one in {**theirs, **own}.items() if name != "whole"}
        keywords = [one.replace(kind=one.KEYWORD_ONLY) for name, one in named.items() if name != "self"]
        __init__.__signature__ = inspect.Signature([named["self"], *keywords])  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign, assignment]

    def forward(self, hidden_states: Tensor, *, timestep: Tensor, guidance: Tensor | None = None, **others: Any) -> Any:
        """Run as diffusers' model does, which explains the arguments."""
        # Compared before diffusers casts and multiplies them: neighboring times are one and the same in bfloat16.
        for name, given, own in (("t", timestep, self.config["t"]), ("guidance", guidance, self.config["guidance"])):
            wrong = [] if given is None or given.is_meta else given[given != given.new_tensor(own or 0.0)].tolist()
            if wrong:
                raise ValueError(f"this model was folded at {name} = {own}, got {wrong[0]:g}; fold it again")
        self._check_prompt(others["encoder_hidden_states"], others.get("pooled_projections"))
        parent: Any = super()
        return parent.forward(hidden_states, timestep=timestep, **others)

    def conditions(
        self, prompt: PromptEmbedding | None, guidance: float | None
    ) -> tuple[PromptEmbedding, float | None]:
        """Return the model's own prompt and guidance; ``None`` means these, and others are a ``ValueError``."""
        own = self.config["guidance"]
        if guidance is not None and guidance != own:
            raise ValueError(f"this model was folded at guidance = {own}, got {guidance}; fold it again")
        if prompt is not None:
            self._check_prompt(prompt.prompt_embeds, prompt.pooled_prompt_embeds)
        return PromptEmbedding(self.prompt_embeds, self.pooled_prompt_embeds, self.config["text"]), own

    def _check_prompt(self, embeds: Tensor, pooled: Tensor | None) -> None:
        for given, own in ((embeds, self.prompt_embeds), (pooled, self.pooled_prompt_embeds)):
            # On meta there is nothing to compare but shapes.
            same = given is own is None or (
                given is not None
                and own is not None
                and given.shape[1:] == own.shape[1:]
                and (given.is_meta or own.is_meta or bool((given.to(own) == own).all()))
            )
            if not same:
                raise ValueError(
                    f"this model was folded with the prompt {self.config['text']!r} ({self.config['text_tokens']} tokens), "
                    "and another was given; fold it again"
                )


class FoldedFluxTransformer(Folded, FluxTransformer2DModel):  # type: ignore[misc]  # so does diffusers combine classes
    """``FluxTransformer2DModel`` at one time, guidance and prompt, without the layers that only depend on these: 27 %."""

    family = FLUX1


class FoldedFlux2Transformer(Folded, Flux2Transformer2DModel):  # type: ignore[misc]  # so does diffusers combine classes
    """``Flux2Transformer2DModel`` at one time, guidance and prompt, without the layers that only depend on these.

    FLUX.2's blocks share their modulation, so that this saves 4 % of klein-4B; without text tokens the text stream goes, too,
    which is another 16 %.
    """

    family = FLUX2
