"""Provides what every folded transformer shares: its constants, its prompt, and its refusal of any other input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fluxsr.models.families import Family
from fluxsr.models.prompts import PromptEmbedding
from fluxsr.models.text_stream import Constant, Nothing, drop_text_stream


def is_folded(config: Mapping[str, Any]) -> bool:
    """Say whether a transformer's modulation layers are constants, by its configuration, which then says the time."""
    return "t" in config


def fold_layers(transformer: Any, family: Family, text_tokens: int, width: int) -> None:
    """Replace a transformer's modulation layers by places for constants, in place, and give it a place for its prompt.

    Args:
        transformer: A whole one.
        family: Its family.
        text_tokens: Number of the prompt's tokens; with 0, the text stream is left out, too.
        width: Width of a token's embedding.
    """
    for name, module in list(transformer.named_modules()):
        if family.modulation.fullmatch(name):
            transformer.set_submodule(name, Constant(module.out_features))
    # The constants ignore what is embedded here, so a scalar zero per image will do.
    transformer.set_submodule(family.embedder, Nothing(1))
    if text_tokens == 0:
        drop_text_stream(transformer, family)
    transformer.register_buffer("prompt_embeds", torch.zeros(1, text_tokens, width))


class Folded:
    """Mixed into a class of diffusers: what a folded transformer holds, and what it refuses."""

    config: Any
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None

    @property
    def prompt(self) -> PromptEmbedding:
        """The prompt that the constants were computed with."""
        return PromptEmbedding(self.prompt_embeds, self.pooled_prompt_embeds, self.config["text"])

    def conditions(
        self, prompt: PromptEmbedding | None, guidance: float | None
    ) -> tuple[PromptEmbedding, float | None]:
        """Return the model's own prompt and guidance; ``None`` means these.

        Raises:
            ValueError: If others are asked for.
        """
        if guidance is not None and guidance != self.config["guidance"]:
            raise ValueError(
                f"this model was folded at guidance {self.config['guidance']}, got {guidance}; fold it again"
            )
        if prompt is not None:
            self.check_prompt(prompt.prompt_embeds, prompt.pooled_prompt_embeds)
        return self.prompt, self.config["guidance"]

    def check_numbers(self, timestep: Tensor, guidance: Tensor | None) -> None:
        """Refuse another time or guidance than the constants were computed with.

        Raises:
            ValueError: With both numbers.
        """
        # Compared before diffusers casts and multiplies them: neighboring times are one and the same in bfloat16.
        for name, given, own in (("t", timestep, self.config["t"]), ("guidance", guidance, self.config["guidance"])):
            wrong = [] if given is None or given.is_meta else given[given != given.new_tensor(own or 0.0)].tolist()
            if wrong:
                raise ValueError(
                    f"this model was folded at {name} = {own}, got {wrong[0]:g}; fold it again for another"
                )

    def check_prompt(self, embeds: Tensor, pooled: Tensor | None) -> None:
        """Refuse another prompt than the constants were computed with.

        Raises:
            ValueError: Naming the model's own.
        """
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
                    "and another was given; fold it again for another"
                )
