"""Wraps FLUX as a velocity model: packing, ids, guidance, prompt and adapters behind ``velocity(xt, t) -> v``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fluxsr.models.adapters import AdapterRoles, LoraFile, lora_rank, lora_targets, read_lora
from fluxsr.models.families import FAMILIES, Conditions, family_of_model, is_folded
from fluxsr.models.prompts import PromptEmbedding, no_prompt
from fluxsr.models.stand_ins import drop_text_stream, has_text_stream, table_of
from fluxsr.models.student import StudentRecord, sizes_of
from fluxsr.models.weight_files import is_writer, public_name, whole, write_safetensors
from fluxsr.protocols import VelocityModel

_PROMPT = ("prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds")


class FluxBackbone(nn.Module):
    """A velocity model ``(xt, t) -> v`` around a transformer of diffusers: FLUX.1's or FLUX.2's.

    Several roles can share one frozen base as LoRA adapters (``student``, ``teacher``, an EMA). Each call chooses the role
    that runs, and gradient checkpointing recomputes every pass with the role that it ran with.

    Args:
        transformer: The diffusers model (:mod:`fluxsr.models.families` lists the classes).
        prompt: Cached embeddings; ``None``: no text tokens and a zero pooled vector. A folded transformer has its own.
        guidance: The distilled guidance scale of FLUX.1-dev (3.5 is that model's default); must be ``None`` for a
            model without guidance embedding.
        gradient_checkpointing: Recompute each block in the backward pass.

    Raises:
        ValueError: If the transformer is of no known family, makes something else than it takes (an inpainting model), or
            guidance and model, or prompt and model, don't fit.

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
        self.family = family_of_model(transformer)
        self.transformer = cast(Any, transformer)
        config = self.transformer.config
        made = config.get("out_channels")
        if made is not None and made != config.in_channels:
            raise ValueError(
                f"this transformer takes {config.in_channels} channels a token and makes {made}, as FLUX.1-Fill and control "
                "models do, so it is no velocity: give the base that it was made from"
            )
        if is_folded(config):
            guidance = self.transformer.conditions(prompt, guidance)[1]
        check_guidance(config, guidance)
        self.guidance = guidance
        self.latent_channels = config.in_channels // 4
        self.default_role: str | None = None
        self.quantization: str | None = None  # of the frozen weights; load_flux says which
        self.base = ""  # shipped name or hub id of the weights; load_flux says which
        self.source = StudentRecord()  # what the files say that it was loaded from; load_flux says which
        self.adapters = AdapterRoles(self.transformer)
        # Frozen by definition and cached in a file of their own, so not part of checkpoints.
        self.prompt_text = ""
        self.prompt_embeds: Tensor
        self.pooled_prompt_embeds: Tensor | None
        self.negative_prompt_embeds: Tensor | None
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
        return PromptEmbedding(
            self.prompt_embeds, self.pooled_prompt_embeds, self.prompt_text, self.negative_prompt_embeds
        )

    @property
    def conditions(self) -> Conditions:
        """Return the inputs of every pass besides state and time."""
        return Conditions(self.prompt_embeds, self.pooled_prompt_embeds, self.guidance)

    def set_prompt(self, prompt: PromptEmbedding | None) -> None:
        """Replace the prompt, for example by one of another length; it goes to the device of the old one."""
        config = self.transformer.config
        if is_folded(config):  # it brings its prompt, and refuses others
            prompt = self.transformer.conditions(prompt, None)[0]
        empty = no_prompt(config)
        prompt = empty if prompt is None else prompt
        wanted, got = (tuple(None if one is None else one.shape[-1] for one in both[:2]) for both in (empty, prompt))
        if got != wanted:
            raise ValueError(
                f"the prompt has widths {got}, the model wants {wanted}; encode it with the model's own encoders"
            )
        if prompt.prompt_embeds.shape[1] and not has_text_stream(self.transformer):
            raise ValueError(
                f"this model was loaded without its text stream, and the prompt has {prompt.prompt_embeds.shape[1]} tokens: "
                "load it with text_stream=True, or give no prompt"
            )
        device = self.prompt_embeds.device if "prompt_embeds" in self._buffers else None
        for name in _PROMPT:
            embeds: Tensor | None = getattr(prompt, name)
            self.register_buffer(name, None if embeds is None else embeds.to(device), persistent=False)
        self.prompt_text = prompt.text

    @property
    def text_tokens(self) -> int:
        """How many text tokens run along with the image."""
        return self.prompt_embeds.shape[1]

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Return the velocity with the default role: the student once there is one, else the base."""
        return self._run(self.default_role, xt, t)

    def as_role(self, role: str | None) -> partial[Tensor]:
        """Return the velocity model of one role; ``None`` is the frozen base alone."""
        with self.adapters.use(role):
            return partial(self._run, role)

    def guided(self, scale: float) -> VelocityModel:
        """Return the velocity under classifier-free guidance: ``v_negative + scale (v - v_negative)``, two passes for one.

        It is how an undistilled base (FLUX.2-klein-base: 4.0) is sampled; a model with a guidance embedding has ``guidance``.
        With ``scale`` 1 it is the prompt alone, and a single pass; else a prompt without a negative one is a ``ValueError``.
        """
        if scale == 1:
            return self
        if self.negative_prompt_embeds is None:
            raise ValueError(
                f"classifier-free guidance of {scale:g} needs a negative prompt, and this model's prompt holds none: make its "
                "file with `fluxsr prompt --negative ''` and a FLUX.2 model, or leave cfg at 1"
            )

        def velocity(xt: Tensor, t: Tensor) -> Tensor:
            against = self._run(self.default_role, xt, t, negative=True)
            return against + scale * (self(xt, t) - against)

        return velocity

    def _run(self, role: str | None, xt: Tensor, t: Tensor, negative: bool = False) -> Tensor:
        if xt.ndim != 4 or xt.shape[1] != self.latent_channels:
            raise ValueError(f"latents must have shape (B, {self.latent_channels}, h, w), got {tuple(xt.shape)}")
        if (table := table_of(self.transformer, self.family)) is not None:
            table.select(t)
        conditions = self.conditions
        if negative:
            assert self.negative_prompt_embeds is not None
            conditions = conditions._replace(prompt_embeds=self.negative_prompt_embeds)
        with self.adapters.use(role):
            v = self.family.velocity(self.transformer, xt, t, conditions, self.dtype)
        return v.to(torch.promote_types(xt.dtype, torch.float32))

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
        if self.default_role in (None, role):
            self.source = StudentRecord()  # a new adapter makes another model, of which nothing is known yet
        if trainable and self.default_role is None:
            self.default_role = role

    def load_lora(self, path: str | Path, role: str = "student", *, trainable: bool = True) -> None:
        """Add the adapter of a file as a role, at the file's own rank; on ``meta`` only the file's header is read.

        Raises:
            ValueError: If the file is missing or damaged, or does not fit this base.
        """
        device = "meta" if self.transformer.x_embedder.weight.is_meta else "cpu"
        self.put_lora(read_lora(path, self.family, device), role, trainable=trainable)

    def put_lora(self, file: LoraFile, role: str, *, trainable: bool) -> None:
        """Add the adapter of a file that was read, as :meth:`load_lora` does."""
        names = lora_targets(file.state)
        own = {name for name, _ in self.transformer.named_modules()}
        unknown = [name for name in names if name not in own]
        if unknown:
            for other in FAMILIES:
                if other is not self.family and other.recognizes(names):
                    raise ValueError(
                        f"{file.path} was made for {other.name}, and this is a {self.family.name}: give its own base"
                    )
            raise ValueError(f"{file.path} adapts {unknown[0]!r}, which this model lacks: it was made for another base")
        file.record.check_base(file.path, self.base, self.transformer.config)
        file.record.tell_differences(file.path, guidance=self.guidance, prompt_digest=self.prompt.digest)
        if role not in self.adapters.names:
            self.add_lora(role, rank=lora_rank(file.state), targets=names, trainable=trainable)
        self.adapters.load_state_dict(role, file.state)
        if self.default_role in (None, role):
            self.source = file.record

    @property
    def record(self) -> StudentRecord:
        """What the model is: what its files said, and its present base, guidance and prompt; a training adds its own."""
        return replace(
            self.source,
            base=self.base or self.source.base,
            base_sizes=sizes_of(self.transformer.config),
            guidance=self.guidance,
            prompt=self.prompt_text,
            prompt_digest=self.prompt.digest,
        )

    def save(self, path: str | Path, *, dtype: str = "float32", record: StudentRecord | None = None) -> Path:
        """Write what was trained to one file: the student's adapter, or else the whole transformer.

        In a distributed run every process calls it, and the first one writes.

        Args:
            path: File ending in ``.safetensors``. A transformer's names its architecture, so ``load_flux(path)`` rebuilds it.
            dtype: Dtype of a transformer's stored weights.
            record: What the file's header says of the model; by default :attr:`record`.

        Raises:
            ValueError: If the model has no adapter, and a modulation table or no text stream.
        """
        if self.default_role is not None:
            return self.save_lora(path, self.default_role, record)
        tabulated = table_of(self.transformer, self.family) is not None
        if tabulated or not (has_text_stream(self.transformer) or is_folded(self.transformer.config)):
            what = "a modulation table" if tabulated else "no text stream"
            raise ValueError(f"this model has {what} and lacks the layers themselves: only its adapters can be saved")
        config = {key: value for key, value in self.transformer.config.items() if not key.startswith("_")}
        kind = getattr(torch, dtype)
        state = {public_name(key): whole(tensor).to(kind) for key, tensor in self.transformer.state_dict().items()}
        if is_writer():
            header = (record or self.record).header()
            write_safetensors(path, state, metadata={**header, "architecture": json.dumps(config)})
        return Path(path)

    def drop_text_stream(self) -> None:
        """Take out, in place, what works on text tokens alone: 18 % of FLUX.2-klein-4B, without a change where there are none.

        The model takes no prompt from then on, and is no longer saved whole; adapters, fusing and folding work as ever.
        """
        if self.text_tokens:
            raise ValueError(f"the text stream can't be left out: the prompt has {self.text_tokens} tokens")
        if self.adapters.names:
            raise ValueError("the text stream is left out before adapters are added, and this model has some")
        if has_text_stream(self.transformer):
            drop_text_stream(self.transformer, self.family)

    def save_lora(self, path: str | Path, role: str = "student", record: StudentRecord | None = None) -> Path:
        """Write a role's adapter as plain diffusers loads it; returns the file's path. ``record`` as for :meth:`save`."""
        return self.adapters.save(path, role, (record or self.record).header())


def check_guidance(config: Any, guidance: float | None) -> None:
    """Refuse a guidance that a model does not embed, and a model that embeds one without it."""
    if config["guidance_embeds"] and guidance is None:
        raise ValueError("this model has a guidance embedding: give guidance, for example 3.5")
    if not config["guidance_embeds"] and guidance is not None:
        raise ValueError(f"guidance is {guidance}, and this model takes no guidance: leave it out")
