"""Describes what differs between FLUX.1 and FLUX.2, and nothing else. All code that depends on it asks here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.models.packing import image_ids


class Conditions(NamedTuple):
    """The inputs of a pass besides state and time.

    Attributes:
        prompt_embeds: Text tokens ``(1, T, joint_attention_dim)``; T may be 0.
        pooled_prompt_embeds: ``(1, pooled_projection_dim)``; ``None`` for a family without a pooled prompt.
        guidance: Distilled guidance scale, for models that embed one.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None
    guidance: float | None


@dataclass(frozen=True)
class Family:
    """A family of transformers: the same blocks' names and the same arguments, at any size.

    Args:
        name: Name for people.
        transformer: Name of diffusers' class.
        folded: Name of this library's class with constant modulation.
        since: First release of diffusers that has the class.
        mark: An argument that only this class has, and its default: it distinguishes configurations without a class name.
        modulation: Full names of the linears that see time, guidance and pooled prompt alone.
        embedder: Name of the module that embeds these.
        image_linears: Full names of the linears that adapters get by default.
        text_linears: The same of what works on text tokens alone: without text they would never have a gradient.
        text_stream: Names, inside a double-stream block, of what works on text tokens alone.
        text_modulation: Name of a modulation linear for text tokens alone, where it is shared by the blocks.
        pooled: Whether there is a pooled prompt beside the tokens.
        tables: Whether each block has modulation layers of its own, so that a table of their outputs saves much.
        id_columns: Columns of a token's position ids.
        lora_loader: Name of diffusers' class that translates other trainers' adapter files.
        autoencoders: Hub ids of autoencoders that the published models work with.
    """

    name: str
    transformer: str
    folded: str
    since: str
    mark: tuple[str, Any]
    modulation: re.Pattern[str]
    embedder: str
    image_linears: str
    text_linears: str
    text_stream: tuple[str, ...]
    text_modulation: str | None
    pooled: bool
    tables: bool
    id_columns: int
    lora_loader: str
    autoencoders: tuple[str, ...]

    def diffusers_class(self) -> Any:
        """Return diffusers' class.

        Raises:
            ValueError: If the installed diffusers is too old to have it.
        """
        return from_diffusers(self.transformer, self.since, self.name)

    def complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration without diffusers' private keys, with the argument by which the family is known."""
        own = {key: value for key, value in config.items() if not key.startswith("_")}
        return {self.mark[0]: self.mark[1], **own}

    def arguments(
        self, conditions: Conditions, batch: int, height: int, width: int, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Return what the transformer's ``forward`` takes besides tokens and times, for latents of ``height`` x ``width``."""
        text = conditions.prompt_embeds.shape[1]
        txt_ids = torch.zeros(text, self.id_columns, device=device)
        if self.id_columns == 4:  # (picture, row, column, word)
            txt_ids[:, 3] = torch.arange(text, device=device)
        found: dict[str, Any] = {
            "guidance": None,
            "encoder_hidden_states": conditions.prompt_embeds.to(dtype).expand(batch, -1, -1),
            "img_ids": image_ids(height, width, device, self.id_columns),
            "txt_ids": txt_ids,
        }
        if conditions.guidance is not None:
            found["guidance"] = torch.full((batch,), conditions.guidance, device=device, dtype=torch.float32)
        if conditions.pooled_prompt_embeds is not None:
            found["pooled_projections"] = conditions.pooled_prompt_embeds.to(dtype).expand(batch, -1)
        return found

    def embed(self, embedder: nn.Module, t: float, conditions: Conditions, dtype: torch.dtype) -> Tensor:
        """Return what every modulation linear sees, ``(1, D)``: by diffusers' own operations, or bits would differ."""
        # On the embedder's device: a quantized base is loaded onto a GPU before the prompt goes there.
        device = next(embedder.parameters()).device
        numbers = [t] if conditions.guidance is None else [t, conditions.guidance]
        inputs = [torch.full((1,), n, device=device, dtype=torch.float32).to(dtype) * 1000 for n in numbers]
        if self.pooled:
            assert conditions.pooled_prompt_embeds is not None
            inputs.append(conditions.pooled_prompt_embeds.to(device, dtype))
        elif conditions.guidance is None:
            return nn.functional.silu(embedder(*inputs, None))
        return nn.functional.silu(embedder(*inputs))

    def shift(self, image_tokens: int, steps: int) -> float:
        """Return the published time shift of the sampling grid, ``exp(mu)``.

        Args:
            image_tokens: Tokens of the whole image, a token for each 2x2 latent positions.
            steps: Euler steps; FLUX.1's shift does not depend on them.

        Source: the scheduler configuration of FLUX.1-dev, and FLUX.2's sampling code, whose two lines in the number of tokens
        were fitted at 10 and at 200 steps.
        """
        if self.id_columns == 3:
            return math.exp(0.5 + (1.15 - 0.5) * (image_tokens - 256) / (4096 - 256))
        many = 0.00016927 * image_tokens + 0.45666666
        if image_tokens > 4300:
            return math.exp(many)
        few = 8.73809524e-05 * image_tokens + 1.89833333
        slope = (many - few) / 190.0
        return math.exp(slope * steps + (many - 200.0 * slope))

    def is_block_modulation(self, name: str) -> bool:
        """Say whether a parameter belongs to the blocks' modulation; that of the last norm is no block's."""
        return bool(self.modulation.match(name)) and not name.startswith("norm_out.")

    def recognizes(self, linears: list[str]) -> bool:
        """Say whether all names of linears are such that this family's blocks have them."""
        pattern = re.compile(rf"({self.image_linears}|{self.text_linears}|{self.modulation.pattern})")
        return all(pattern.fullmatch(name) for name in linears)


FLUX1 = Family(
    name="FLUX.1",
    transformer="FluxTransformer2DModel",
    folded="FoldedFluxTransformer",
    since="0.30",
    mark=("pooled_projection_dim", 768),
    # The AdaLN linears: two in a double-stream block, one in a single-stream block, one before the last projection.
    modulation=re.compile(
        r"(transformer_blocks\.\d+\.norm1(_context)?|single_transformer_blocks\.\d+\.norm|norm_out)\.linear"
    ),
    embedder="time_text_embed",
    # Attention and MLP linears of both kinds of blocks; the modulation (norm*.linear) and the embedders stay as they are.
    image_linears=r"(single_)?transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2)|proj_mlp|proj_out)",
    text_linears=r"transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|ff_context\.net\.(0\.proj|2))",
    text_stream=("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out", "ff_context"),
    text_modulation=None,
    pooled=True,
    tables=True,
    id_columns=3,
    lora_loader="FluxLoraLoaderMixin",
    autoencoders=("black-forest-labs/FLUX.1-dev", "madebyollin/taef1"),
)

FLUX2 = Family(
    name="FLUX.2",
    transformer="Flux2Transformer2DModel",
    folded="FoldedFlux2Transformer",
    since="0.36",
    mark=("timestep_guidance_channels", 256),
    # Three for all blocks together, and one before the last projection.
    modulation=re.compile(r"(double_stream_modulation_(img|txt)|single_stream_modulation|norm_out)\.linear"),
    embedder="time_guidance_embed",
    image_linears=(
        r"(transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0)|ff\.linear_(in|out))"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out))"
    ),
    text_linears=r"transformer_blocks\.\d+\.(attn\.(add_[qkv]_proj|to_add_out)|ff_context\.linear_(in|out))",
    text_stream=("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out", "ff_context"),
    text_modulation="double_stream_modulation_txt.linear",
    pooled=False,
    tables=False,
    id_columns=4,
    lora_loader="Flux2LoraLoaderMixin",
    autoencoders=("black-forest-labs/FLUX.2-klein-4B",),
)

FAMILIES = (FLUX1, FLUX2)
"""All of them; a loop over these is the only list of families."""


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family that a transformer's configuration is of, by its class name, or by the argument that marks it.

    Raises:
        ValueError: If it is of none, naming what it is and what is supported.
    """
    name = config.get("_class_name")
    for family in FAMILIES:
        if name in (family.transformer, family.folded) or (name is None and family.mark[0] in config):
            return family
    raise ValueError(f"{name or 'a transformer without a class name'!r}, which is not supported here; {supported()}")


def family_of_model(transformer: nn.Module) -> Family:
    """Return the family of a transformer, by the names of its class and the classes above it.

    Raises:
        ValueError: If it is of none, naming what it is and what is supported.
    """
    names = [kind.__name__ for kind in type(transformer).__mro__]
    for family in FAMILIES:
        if family.transformer in names:
            return family
    raise ValueError(f"the transformer is {names[0]!r}, which is not supported here; {supported()}")


def supported() -> str:
    """Return which transformers are supported, in words."""
    return "supported: " + ", ".join(f"{family.name} ({family.transformer})" for family in FAMILIES)


def image_tokens(output: Any, text_tokens: int) -> Tensor:
    """Return the image tokens ``(B, N, D)`` of what a block gave: (text, image), or one tensor of text and then image tokens.

    Every double-stream block and FLUX.1's single-stream blocks give two tensors, FLUX.2's single-stream blocks give one.
    """
    return output[:, text_tokens:] if isinstance(output, Tensor) else output[1]


def refuse_other_widths(config: Any) -> None:
    """Refuse a transformer that takes more channels than it makes: an inpainting or control model is no velocity of its input.

    Raises:
        ValueError: With both numbers.
    """
    given, made = config["in_channels"], config.get("out_channels")
    if made is not None and made != given:
        raise ValueError(
            f"this transformer takes {given} channels a token and makes {made}, as FLUX.1-Fill and the control models do: it "
            "is no velocity of what it is given; give the base that it was made from"
        )


def from_diffusers(name: str, since: str, what: str) -> Any:
    """Return a class of diffusers by name.

    Args:
        name: Name of the class.
        since: The first release that has it.
        what: Name of what needs it, for the error.

    Raises:
        ValueError: If the installed release does not have it, with the one that does.
    """
    import diffusers

    found = getattr(diffusers, name, None)
    if found is None:
        raise ValueError(
            f"{what} needs diffusers {since} or newer, which has {name}; installed is {diffusers.__version__}: "
            "pip install -U diffusers"
        )
    return found
