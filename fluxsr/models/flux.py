"""FLUX as a velocity model: packing, ids, guidance, prompt and adapters behind ``velocity(xt, t) -> v``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fluxsr.models.adapters import AdapterRoles, lora_rank, lora_targets, save_lora
from fluxsr.models.distributed import is_writer, whole
from fluxsr.models.lora_files import read_lora
from fluxsr.models.packing import image_ids, pack, unpack
from fluxsr.models.prompts import PromptEmbedding, no_prompt
from fluxsr.models.weight_files import write_safetensors

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel


class FluxBackbone(nn.Module):
    """A velocity model ``(xt, t) -> v`` around diffusers' ``FluxTransformer2DModel``.

    Several roles can live on one frozen base as LoRA adapters (``student``, ``teacher``, an EMA); which one runs is chosen
    per call, and gradient checkpointing recomputes every pass with the role that it ran with.

    Args:
        transformer: the diffusers model.
        prompt: cached embeddings; ``None``: no text tokens and a zero pooled vector. A folded transformer has its own.
        guidance: the distilled guidance scale of FLUX.1-dev (3.5 is that model's default); must be ``None`` for a
            model without guidance embedding.
        gradient_checkpointing: recompute each block in the backward pass.

    Raises:
        ValueError: if guidance and model, or prompt and model, don't fit.

    Shapes:
        ``xt`` ``(B, C, h, w)`` with even sides, ``t`` ``(B,)`` in ``[0, 1]``; the result as ``xt``, float32 unless ``xt``
        is float64.
    """

    def __init__(
        self,
        transformer: nn.Module,
        prompt: PromptEmbedding | None = None,
        guidance: float | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        config: Any = transformer.config
        conditions: Any = getattr(transformer, "conditions", None)
        if conditions is not None:  # a folded one brings its guidance, and refuses others
            guidance = conditions(prompt, guidance)[1]
        if config.guidance_embeds and guidance is None:
            raise ValueError("this model has a guidance embedding (FLUX.1-dev does): give guidance, for example 3.5")
        if not config.guidance_embeds and guidance is not None:
            raise ValueError(f"this model has no guidance embedding, so guidance must be None, got {guidance}")
        self.transformer = cast("FluxTransformer2DModel", transformer)
        self.guidance = guidance
        self.latent_channels = config.in_channels // 4
        self.default_role: str | None = None
        self.quantization: str | None = None  # of the frozen weights; load_flux says which
        self.adapters = AdapterRoles(self.transformer)
        # Frozen by definition and cached in a file of their own, so not part of checkpoints.
        self.prompt_text = ""
        self.prompt_embeds: Tensor
        self.pooled_prompt_embeds: Tensor
        self.register_buffer("prompt_embeds", None, persistent=False)
        self.register_buffer("pooled_prompt_embeds", None, persistent=False)
        self.set_prompt(prompt)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing(self._checkpoint)

    @classmethod
    def from_transformer(
        cls,
        transformer: nn.Module,
        prompt: PromptEmbedding | None = None,
        guidance: float | None = None,
        gradient_checkpointing: bool = False,
    ) -> FluxBackbone:
        """Wrap a diffusers model that you made yourself; see the class for the arguments."""
        return cls(transformer, prompt, guidance, gradient_checkpointing)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the base's weights."""
        return self.transformer.x_embedder.weight.dtype

    @property
    def prompt(self) -> PromptEmbedding:
        """The prompt of every image."""
        return PromptEmbedding(self.prompt_embeds, self.pooled_prompt_embeds, self.prompt_text)

    def set_prompt(self, prompt: PromptEmbedding | None) -> None:
        """Replace the prompt, for example by one of another length; it goes to the device of the old one.

        Adapters stay as they are: without text tokens the text stream gets none when they are added.

        Args:
            prompt: The new one, as in the constructor.

        Raises:
            ValueError: if prompt and model don't fit, or the model was folded with another.
        """
        config: Any = self.transformer.config
        conditions: Any = getattr(self.transformer, "conditions", None)
        if conditions is not None:  # a folded one brings its prompt, and refuses others
            prompt = conditions(prompt, None)[0]
        wanted = (config.joint_attention_dim, config.pooled_projection_dim)
        if prompt is None:
            prompt = no_prompt(*wanted)
        got = (prompt.prompt_embeds.shape[-1], prompt.pooled_prompt_embeds.shape[-1])
        if got != wanted:
            raise ValueError(
                f"the prompt has widths {got}, the model wants {wanted}; encode it with the model's own encoders"
            )
        device = None if self.prompt_embeds is None else self.prompt_embeds.device
        self.prompt_embeds = prompt.prompt_embeds.to(device)
        self.pooled_prompt_embeds = prompt.pooled_prompt_embeds.to(device)
        self.prompt_text = prompt.text

    @property
    def text_tokens(self) -> int:
        """How many text tokens run along with the image."""
        return self.prompt_embeds.shape[1]

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Return the velocity with the default role: the student once there is one, else the base."""
        return self._run(self.default_role, xt, t)

    def as_role(self, role: str | None) -> partial[Tensor]:
        """Return the velocity model of one role; ``None`` is the frozen base alone.

        Raises:
            ValueError: for an unknown role.
        """
        with self.adapters.use(role):
            return partial(self._run, role)

    def _run(self, role: str | None, xt: Tensor, t: Tensor) -> Tensor:
        if xt.ndim != 4 or xt.shape[1] != self.latent_channels:
            raise ValueError(f"latents must have shape (B, {self.latent_channels}, h, w), got {tuple(xt.shape)}")
        batch, _, height, width = xt.shape
        dtype = self.dtype
        guidance = None
        if self.guidance is not None:
            guidance = torch.full((batch,), self.guidance, device=xt.device, dtype=torch.float32)
        table: Any = self.transformer.time_text_embed
        if hasattr(table, "select"):  # fluxsr.models.modulation.table
            table.select(t)
        with self.adapters.use(role):
            tokens = self.transformer(
                hidden_states=pack(xt).to(dtype),
                timestep=t.to(device=xt.device),
                guidance=guidance,
                encoder_hidden_states=self.prompt_embeds.to(dtype).expand(batch, -1, -1),
                pooled_projections=self.pooled_prompt_embeds.to(dtype).expand(batch, -1),
                img_ids=image_ids(height, width, xt.device),
                txt_ids=torch.zeros(self.text_tokens, 3, device=xt.device),
                return_dict=False,
            )[0]
        return unpack(tokens, height, width).to(torch.promote_types(xt.dtype, torch.float32))

    def _checkpoint(self, block: nn.Module, *args: Any) -> Any:
        """Checkpoint a block together with the role that it ran with: recomputation must not use another."""
        role = self.adapters.active[0] if self.adapters.active else None

        def run(*inputs: Any) -> Any:
            with self.adapters.use(role):
                return block(*inputs)

        return checkpoint(run, *args, use_reentrant=False)

    def add_lora(
        self,
        role: str = "student",
        *,
        rank: int = 64,
        alpha: float | None = None,
        targets: str | Sequence[str] | None = None,
        trainable: bool = True,
    ) -> None:
        """Freeze the base and add an adapter; the first trainable one becomes the default role.

        See :meth:`fluxsr.models.adapters.AdapterRoles.add` for the arguments and errors.
        """
        self.adapters.add(role, rank=rank, alpha=alpha, targets=targets, text=self.text_tokens > 0, trainable=trainable)
        if trainable and self.default_role is None:
            self.default_role = role

    def load_lora(self, path: str | Path, role: str = "student", *, trainable: bool = True) -> None:
        """Add the adapter of a file as a role, at the file's own rank; on ``meta`` only the file's header is read.

        Raises:
            ValueError: if the file is missing or damaged, or does not fit this base.
        """
        device = "meta" if self.transformer.x_embedder.weight.is_meta else "cpu"
        state = read_lora(path, device)
        names = lora_targets(state)
        own = {name for name, _ in self.transformer.named_modules()}
        unknown = [name for name in names if name not in own]
        if unknown:
            raise ValueError(
                f"{path} adapts {unknown[0]!r}, which this model does not have: it was made for another base"
            )
        if role not in self.adapters.names:
            self.add_lora(role, rank=lora_rank(state), targets=names, trainable=trainable)
        self.adapters.load_state_dict(role, state)

    def save(self, path: str | Path, *, dtype: str = "float32", metadata: dict[str, str] | None = None) -> Path:
        """Write what was trained to one file: the student's adapter, or else the whole transformer.

        In a distributed run every process calls it, and the first one writes.

        Args:
            path: file ending in ``.safetensors``. A transformer's file names its architecture, so
                ``load_flux(path)`` rebuilds it.
            dtype: Dtype of a transformer's stored weights.
            metadata: further strings for the file's header.

        Raises:
            ValueError: if the model has a modulation table and no adapter, or the path does not end in ``.safetensors``.
        """
        if self.default_role is not None:
            return self.save_lora(path, self.default_role, metadata)
        if hasattr(self.transformer.time_text_embed, "times"):
            raise ValueError(
                "this model has a modulation table and lacks the layers themselves: only its adapters can be saved"
            )
        config = {key: value for key, value in self.transformer.config.items() if not key.startswith("_")}
        kind = getattr(torch, dtype)
        state = {key: whole(tensor).to(kind) for key, tensor in self.transformer.state_dict().items()}
        if is_writer():
            write_safetensors(path, state, metadata={**(metadata or {}), "architecture": json.dumps(config)})
        return Path(path)

    def save_lora(self, path: str | Path, role: str = "student", metadata: dict[str, str] | None = None) -> Path:
        """Write a role's adapter as plain diffusers loads it; returns the file's path."""
        return save_lora(self.adapters, path, role, metadata)
