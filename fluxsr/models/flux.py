"""FLUX as a velocity model: packing, ids, guidance, prompt and adapters behind ``velocity(xt, t) -> v``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fluxsr.models.adapters import AdapterRoles, lora_rank, lora_targets, read_lora, save_lora
from fluxsr.models.architectures import FLUX_ARCHITECTURES, flux_architecture
from fluxsr.models.files import explain_loading, read_safetensors, write_safetensors
from fluxsr.models.packing import image_ids, pack, unpack
from fluxsr.models.prompts import PromptEmbedding, no_prompt

ASSETS = Path(__file__).parent.parent / "assets"
# The names that come with weights inside the package, and the file of each.
SHIPPED = {"nano": "nano_teacher.safetensors", "nano-student": "nano_student.safetensors"}


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
        if hasattr(transformer, "conditions"):  # a folded one brings its prompt and guidance, and refuses others
            prompt, guidance = transformer.conditions(prompt, guidance)
        if config.guidance_embeds and guidance is None:
            raise ValueError("this model has a guidance embedding (FLUX.1-dev does): give guidance, for example 3.5")
        if not config.guidance_embeds and guidance is not None:
            raise ValueError(f"this model has no guidance embedding, so guidance must be None, got {guidance}")
        if prompt is None:
            prompt = no_prompt(config.joint_attention_dim, config.pooled_projection_dim)
        wanted = (config.joint_attention_dim, config.pooled_projection_dim)
        got = (prompt.prompt_embeds.shape[-1], prompt.pooled_prompt_embeds.shape[-1])
        if got != wanted:
            raise ValueError(
                f"the prompt has widths {got}, the model wants {wanted}; encode it with the model's own encoders"
            )
        self.transformer = transformer
        self.guidance = guidance
        self.prompt_text = prompt.text
        self.latent_channels = config.in_channels // 4
        self.default_role: str | None = None
        self.adapters = AdapterRoles(transformer)
        # Frozen by definition and cached in a file of their own, so not part of checkpoints.
        self.prompt_embeds: Tensor
        self.pooled_prompt_embeds: Tensor
        self.register_buffer("prompt_embeds", prompt.prompt_embeds, persistent=False)
        self.register_buffer("pooled_prompt_embeds", prompt.pooled_prompt_embeds, persistent=False)
        if gradient_checkpointing:
            transformer.enable_gradient_checkpointing(self._checkpoint)

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
        """Add the adapter of a file as a role, at the file's own rank.

        Raises:
            ValueError: if the file is missing or damaged, or does not fit this base.
        """
        state = read_lora(path)
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

        Args:
            path: file ending in ``.safetensors``. A transformer's file names its architecture, so
                ``load_flux(path)`` rebuilds it.
            dtype: of a transformer's stored weights.
            metadata: further strings for the file's header.
        """
        if self.default_role is not None:
            return self.save_lora(path, self.default_role, metadata)
        config = {key: value for key, value in self.transformer.config.items() if not key.startswith("_")}
        state = {key: tensor.to(getattr(torch, dtype)) for key, tensor in self.transformer.state_dict().items()}
        write_safetensors(path, state, metadata={**(metadata or {}), "architecture": json.dumps(config)})
        return Path(path)

    def save_lora(self, path: str | Path, role: str = "student", metadata: dict[str, str] | None = None) -> Path:
        """Write a role's adapter as plain diffusers loads it; returns the file's path."""
        return save_lora(self.adapters, path, role, metadata)


def load_flux(
    model: str = "nano",
    *,
    weights: bool = True,
    prompt: str | None = None,
    guidance: float | None = None,
    trainable: Literal["lora", "full", "none"] = "lora",
    lora_rank: int = 64,
    lora_alpha: float | None = None,
    lora_targets: list[str] | None = None,
    lora_weights: str | None = None,
    teacher_lora: str | None = None,
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
    revision: str | None = None,
) -> FluxBackbone:
    """Load a FLUX backbone and say what of it is trained.

    Args:
        model: ``nano`` (the shipped teacher) or ``nano-student``; a hub id (``black-forest-labs/FLUX.1-dev``); a local
            folder in diffusers' layout, of a pipeline or of a transformer alone; a ``.safetensors`` file made by this
            library (all of these folded or not); or, with ``weights=False``, the name of an architecture.
        weights: ``False`` gives random weights: train from scratch, or plan without a download.
        prompt: file of cached embeddings made by ``fluxsr prompt``; none: no text tokens.
        guidance: for models with a guidance embedding (FLUX.1-dev: 3.5).
        trainable: ``lora``: a new adapter on a frozen base; ``full``: every weight; ``none``: nothing.
        lora_rank: of the adapter. The paper publishes none; 64 is our default.
        lora_alpha: the adapter's scale is ``alpha / rank``; the rank itself by default.
        lora_targets: names of linears; attention and MLP linears by default (ours).
        lora_weights: adapter file to start from, instead of a new one.
        teacher_lora: adapter file that becomes the frozen role ``teacher`` on the same base, for objectives that want one.
        dtype: of the frozen weights, a torch dtype's name; adapters stay in float32.
        gradient_checkpointing: recompute blocks in the backward pass.
        revision: of the hub repository.

    Raises:
        ValueError: if something can't be loaded or doesn't fit, naming it and what to do.
    """
    if trainable not in ("lora", "full", "none"):
        raise ValueError(f"trainable must be lora, full or none, got {trainable!r}")
    transformer = _load_transformer(model, weights, getattr(torch, dtype), revision)
    embedding = PromptEmbedding.load(prompt) if prompt is not None else None
    backbone = FluxBackbone(transformer, embedding, guidance, gradient_checkpointing)
    if lora_weights is not None:
        backbone.load_lora(lora_weights, trainable=trainable == "lora")
        backbone.default_role = "student"
    elif trainable == "lora":
        backbone.add_lora(rank=lora_rank, alpha=lora_alpha, targets=lora_targets)
    if trainable != "lora":
        backbone.requires_grad_(trainable == "full")
    if teacher_lora is not None:
        if trainable == "full":
            raise ValueError(
                f"teacher_lora={teacher_lora!r} needs a frozen base, but trainable is 'full'; give OneStepSR a teacher instead"
            )
        backbone.load_lora(teacher_lora, "teacher", trainable=False)
    return backbone


def shipped_file(name: str) -> Path:
    """Return the file of weights that come with the package."""
    return ASSETS / SHIPPED[name]


def _load_transformer(model: str, weights: bool, dtype: torch.dtype, revision: str | None) -> nn.Module:
    from diffusers import FluxTransformer2DModel

    from fluxsr.models.checkpoints import own_memory

    if not weights:
        return _in_dtype(FluxTransformer2DModel(**flux_architecture(model)), dtype)
    if model in SHIPPED or model.endswith(".safetensors"):
        return _load_file(shipped_file(model) if model in SHIPPED else Path(model), dtype)
    if model in FLUX_ARCHITECTURES:
        raise ValueError(f"{model!r} names an architecture without shipped weights; give the hub id, or weights=False")
    local = Path(model)
    inside = (local / "config.json").is_file() and not (local / "transformer").is_dir()
    where = {"subfolder": None if inside else "transformer", "revision": revision}
    with explain_loading(model):
        kind = _transformer_class(FluxTransformer2DModel.load_config(model, **where))
        return own_memory(kind.from_pretrained(model, torch_dtype=dtype, **where))


def _transformer_class(config: dict[str, Any]) -> Any:
    """Return the class that a configuration is for: diffusers' own, or a folded one, which has a time."""
    if "t" in config:
        from fluxsr.models.folded import FoldedFluxTransformer

        return FoldedFluxTransformer
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel


def _load_file(path: Path, dtype: torch.dtype) -> nn.Module:
    """Load a transformer from one file whose metadata names its architecture."""
    state, metadata = read_safetensors(path)
    architecture = metadata.get("architecture")
    if architecture is None:
        raise ValueError(
            f"{path} does not name its architecture, so it was not made by this library; give a diffusers folder"
        )
    config = json.loads(architecture)
    with torch.device("meta"):
        transformer = _transformer_class(config)(**config)
    # Copies: what was read may be views of the mapped file, which somebody may write anew.
    transformer.load_state_dict({key: tensor.to(dtype, copy=True) for key, tensor in state.items()}, assign=True)
    return transformer


def _in_dtype(transformer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast only where something changes: diffusers warns at every cast."""
    return transformer if dtype == torch.float32 else transformer.to(dtype)
