"""Defines what differs between families of transformers: one class for each, which all other code asks."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

FOLDED_HOME = "fluxsr.models.folded"  # imported when it is needed: it brings diffusers' models


class License(NamedTuple):
    """A license as a model hub names it.

    Attributes:
        identifier: The hub's short name; ``other`` for a license that has none.
        name, link: Its name, and a link to its text; empty where no license is known.
        commercial: Whether commercial use is free.
        terms: Meaning for an adapter or an exported model that was made from the base.
    """

    identifier: str
    name: str
    link: str
    commercial: bool
    terms: str


APACHE = License(
    "apache-2.0",
    "apache-2.0",
    "https://www.apache.org/licenses/LICENSE-2.0",
    True,
    "Commercial use is allowed: adapters and exported models may be used, changed, shared and sold under this license.",
)
UNKNOWN = License(
    "unknown",
    "unknown",
    "",
    False,
    "The license of its base is not known here: **ask whoever made the base** before you use, share or sell this.",
)


def non_commercial(name: str, repository: str) -> License:
    """Return one of Black Forest Labs' non-commercial licenses, as it is linked from a repository."""
    return License(
        "other",
        name,
        f"https://huggingface.co/black-forest-labs/{repository}",
        False,
        "**Commercial use is not allowed** without a license from Black Forest Labs: adapters and exported models are derived "
        "from the base, and its license goes with every copy.",
    )


def is_folded(config: Mapping[str, Any]) -> bool:
    """Say whether a transformer's modulation layers are constants, by its configuration, which then says the time."""
    return "t" in config


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


class Published(NamedTuple):
    """A model that is known by its name: ``hub_id`` of its weights (empty: ours), its transformer's ``config``, ``license``."""

    hub_id: str
    config: Mapping[str, Any]
    license: License


class Family(ABC):
    """A family of transformers: the same blocks' names and the same arguments, at any size.

    Attributes:
        name: Name for people.
        transformer: Name of diffusers' class.
        since: First release of diffusers that has the class.
        folded: Name of this library's class with constant modulation, in :mod:`fluxsr.models.folded`.
        mark: An argument that only this class has, and its default: it distinguishes configurations without a class name.
        modulation: Full names of the linears that see time, guidance and pooled prompt alone.
        embedder: Name of the module that embeds these.
        image_linears: Full names of the linears that adapters get by default.
        text_linears: The same of what works on text tokens alone: without text they would never have a gradient.
        text_stream: Names, inside a double-stream block, of what works on text tokens alone.
        text_modulation: Name of a modulation linear for text tokens alone, where it is shared by the blocks.
        tables: Whether each block has modulation layers of its own, so that a table of their outputs saves much.
        columns: Columns of a token's position ids.
        takes_negative: Whether its models are sampled with classifier-free guidance, away from a negative prompt.
        unquantized: Names of linears that keep their dtype where the weights of others get 8 bits.
        lora_loader: Name of diffusers' class that translates other trainers' adapter files.
        foreign_keys: Beginnings of the keys in such files: by default kohya's.
        pipelines: Names of the pipelines whose text encoders are known; the class that loads them, and the first release of
            diffusers that has it.
        autoencoders: Hub ids of autoencoders that the published models work with.
        vae: Configuration of the published models' autoencoder, with diffusers' class name.
        published: The models that are known by name; names are in small letters.
    """

    name: ClassVar[str]
    transformer: ClassVar[str]
    since: ClassVar[str]
    folded: ClassVar[str]
    mark: ClassVar[tuple[str, Any]]
    modulation: ClassVar[re.Pattern[str]]
    embedder: ClassVar[str]
    image_linears: ClassVar[str]
    text_linears: ClassVar[str]
    text_stream: ClassVar[tuple[str, ...]] = (
        "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out", "ff_context",
    )  # fmt: skip
    text_modulation: ClassVar[str | None] = None
    tables: ClassVar[bool]
    columns: ClassVar[int]
    takes_negative: ClassVar[bool]
    unquantized: ClassVar[tuple[str, ...]] = ("x_embedder", "context_embedder", "proj_out")
    lora_loader: ClassVar[str]
    foreign_keys: ClassVar[re.Pattern[str]] = re.compile(r"lora_(unet|transformer|te\d?)_")
    pipelines: ClassVar[Mapping[str, tuple[str, str]]]
    autoencoders: ClassVar[tuple[str, ...]]
    vae: ClassVar[Mapping[str, Any]]
    published: ClassVar[Mapping[str, Published]]

    def class_of(self, config: Mapping[str, Any]) -> Any:
        """Return the class that a configuration is for: the folded one, or diffusers' (a ``ValueError`` if it is too old)."""
        if is_folded(config):
            return getattr(import_module(FOLDED_HOME), self.folded)
        return from_diffusers(self.transformer, self.since, self.name)

    def complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration without diffusers' private keys, with the argument by which the family is known."""
        own = {key: value for key, value in config.items() if not key.startswith("_")}
        return {self.mark[0]: self.mark[1], **own}

    def velocity(self, transformer: Any, xt: Tensor, t: Tensor, conditions: Conditions, dtype: torch.dtype) -> Tensor:
        """Return the velocity ``(B, C, h, w)`` at a state of the same shape and times ``(B,)``, in the model's dtype."""
        batch, _, height, width = xt.shape
        text = conditions.prompt_embeds.shape[1]
        arguments: dict[str, Any] = {
            "guidance": None,
            "encoder_hidden_states": conditions.prompt_embeds.to(dtype).expand(batch, -1, -1),
            "img_ids": image_ids(height, width, xt.device, self.columns),
            "txt_ids": self.text_ids(text, xt.device),
        }
        if conditions.guidance is not None:
            arguments["guidance"] = torch.full((batch,), conditions.guidance, device=xt.device, dtype=torch.float32)
        if conditions.pooled_prompt_embeds is not None:
            arguments["pooled_projections"] = conditions.pooled_prompt_embeds.to(dtype).expand(batch, -1)
        tokens = transformer(
            hidden_states=pack(xt).to(dtype), timestep=t.to(device=xt.device), return_dict=False, **arguments
        )[0]
        return unpack(tokens, height, width)

    def text_ids(self, tokens: int, device: torch.device) -> Tensor:
        """Return the position ids of text tokens, ``(T, columns)``."""
        return torch.zeros(tokens, self.columns, device=device)

    def embed(self, embedder: nn.Module, t: float, conditions: Conditions, dtype: torch.dtype) -> Tensor:
        """Return what every modulation linear sees, ``(1, D)``: by diffusers' own operations, or bits would differ."""
        # On the embedder's device: a quantized base is loaded onto a GPU before the prompt goes there.
        device = next(embedder.parameters()).device
        numbers = [t] if conditions.guidance is None else [t, conditions.guidance]
        inputs = [torch.full((1,), n, device=device, dtype=torch.float32).to(dtype) * 1000 for n in numbers]
        return nn.functional.silu(embedder(*inputs, *self.embedded_prompt(conditions, device, dtype)))

    @abstractmethod
    def embedded_prompt(self, conditions: Conditions, device: torch.device, dtype: torch.dtype) -> list[Any]:
        """Return what the embedder takes behind time and guidance."""

    @abstractmethod
    def mu(self, image_tokens: int, steps: int) -> float:
        """Return the published dynamic shift of the sampling grid, the logarithm of its factor."""

    def shift(self, image_tokens: int, steps: int, scheduler: Mapping[str, Any] | None = None) -> float:
        """Return the time shift of the sampling grid of ``steps`` Euler steps, for an image of ``image_tokens``.

        Args:
            scheduler: Content of the model's ``scheduler_config.json``: it says whether the shift is dynamic, and the number
                where it isn't. ``None``: there is no such file, and the family's own models are dynamic.
        """
        if scheduler is not None and not scheduler.get("use_dynamic_shifting", False):
            return float(scheduler.get("shift", 1.0))
        return math.exp(self.mu(image_tokens, steps))

    @abstractmethod
    def encode(self, pipeline: Any, text: str, max_tokens: int, trim: bool) -> tuple[Tensor, Tensor | None]:
        """Return a text's features ``(1, T, D)`` and its pooled feature ``(1, P)``, by a pipeline's own encoders."""

    def is_block_modulation(self, name: str) -> bool:
        """Say whether a parameter belongs to the blocks' modulation; that of the last norm is no block's."""
        return bool(self.modulation.match(name)) and not name.startswith("norm_out.")

    def recognizes(self, linears: list[str]) -> bool:
        """Say whether this family's blocks have all of these linears."""
        pattern = re.compile(rf"({self.image_linears}|{self.text_linears}|{self.modulation.pattern})")
        return all(pattern.fullmatch(name) for name in linears)

    def original_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a whole transformer's weights under its authors' names; a ``ValueError`` where these are not known."""
        raise ValueError(f"the original names of {self.name}'s weights are not known: leave the layout at diffusers")


def from_diffusers(name: str, since: str, what: str) -> Any:
    """Return a class of diffusers that ``what`` needs, or raise a ``ValueError`` that says since which release there is one."""
    import diffusers

    try:
        return getattr(diffusers, name)
    except AttributeError:
        raise ValueError(
            f"{what} needs diffusers {since} or newer, not {diffusers.__version__}: pip install -U diffusers"
        ) from None


def pack(latents: Tensor) -> Tensor:
    """Pack latents ``(B, C, h, w)`` into tokens ``(B, h/2 * w/2, 4C)``, channels first inside a token as in FLUX."""
    if latents.ndim != 4:
        raise ValueError(f"latents must have shape (B, C, h, w), got {tuple(latents.shape)}")
    height, width = latents.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(
            f"latents of {height}x{width} don't divide into FLUX's 2x2 patches; "
            "make both sides of the image a multiple of twice the autoencoder's downsampling"
        )
    return nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`pack` for latents of ``height`` x ``width``."""
    grid = tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    return nn.functional.pixel_shuffle(grid, 2)


def image_ids(height: int, width: int, device: torch.device | None = None, axes: int = 3) -> Tensor:
    """Return the position ids ``(h/2 * w/2, axes)`` of packed latents: zero, row, column, and zeros (FLUX.2 has four)."""
    rows = torch.arange(height // 2, device=device, dtype=torch.float32)
    columns = torch.arange(width // 2, device=device, dtype=torch.float32)
    return nn.functional.pad(torch.cartesian_prod(rows, columns), (1, axes - 3))
