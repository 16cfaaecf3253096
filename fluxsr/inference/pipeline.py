"""Wraps a trained super-resolver as a pipeline of diffusers: one folder or hub repository with all that it needs."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from torch import nn

from fluxsr.inference.form import MemoryPlan
from fluxsr.inference.loading import window_of
from fluxsr.inference.memory import memory_limit
from fluxsr.inference.model_card import model_card
from fluxsr.inference.upscaler import Upscaler
from fluxsr.models import FluxBackbone, LatentAutoencoder, PixelAutoencoder, PromptEmbedding
from fluxsr.models.autoencoders import wrap_autoencoder
from fluxsr.models.devices import choose_device
from fluxsr.models.families import FAMILIES, FOLDED_HOME, family_of, is_folded
from fluxsr.models.sources import ModelSource, record_in
from fluxsr.models.student import StudentRecord
from fluxsr.models.weight_files import own_memory

logger = logging.getLogger(__name__)


class FixedPrompt(ModelMixin, ConfigMixin):  # type: ignore[misc]  # so does diffusers combine the two
    """A prompt's embeddings as a component that pipelines save and load."""

    @register_to_config
    def __init__(
        self, tokens: int = 0, joint_attention_dim: int = 4096, pooled_projection_dim: int | None = 768, text: str = ""
    ) -> None:
        super().__init__()
        self.prompt_embeds = nn.Parameter(torch.zeros(1, tokens, joint_attention_dim), requires_grad=False)
        pooled = None if pooled_projection_dim is None else torch.zeros(1, pooled_projection_dim)
        self.pooled_prompt_embeds = None if pooled is None else nn.Parameter(pooled, requires_grad=False)

    @classmethod
    def from_embedding(cls, prompt: PromptEmbedding) -> FixedPrompt:
        """Return the component that holds ``prompt``."""
        tokens, width = prompt.prompt_embeds.shape[1:]
        pooled = prompt.pooled_prompt_embeds
        component = cls(tokens, width, None if pooled is None else pooled.shape[-1], prompt.text)
        component.prompt_embeds.data = prompt.prompt_embeds.detach().clone()
        if pooled is not None and component.pooled_prompt_embeds is not None:
            component.pooled_prompt_embeds.data = pooled.detach().clone()
        return component

    @property
    def embedding(self) -> PromptEmbedding:
        """The prompt."""
        pooled = None if self.pooled_prompt_embeds is None else self.pooled_prompt_embeds.data
        return PromptEmbedding(self.prompt_embeds.data, pooled, self.config["text"])


class FluxSRPipeline(DiffusionPipeline):
    """Upscales photos: FLUX, its autoencoder, a prompt and the numbers that were trained with.

    Adapters, quantization, devices and offloading work as in every pipeline of diffusers; the image itself, of any size and
    kind, is the work of :class:`fluxsr.inference.upscaler.Upscaler`.

    Args:
        transformer: Diffusers' ``FluxTransformer2DModel`` or ``Flux2Transformer2DModel``, or a folded one.
        vae: ``AutoencoderKL``, ``AutoencoderKLFlux2`` or ``AutoencoderTiny``; ``None`` for a model that works on pixels.
        prompt: The fixed prompt; ``None``: no text tokens. A folded transformer has its own.
        record: What the model is besides its weights, as :meth:`fluxsr.models.StudentRecord.values` returns it: the time of
            the LR latents, guidance, window, autoencoder, base and so on.

    Raises:
        ValueError: If the record's values can't be ones, the model is a flow teacher, or no time is known.

    Example:
        >>> from PIL import Image
        >>> from fluxsr.models import PixelAutoencoder, load_flux
        >>> backbone = load_flux("nano-student", trainable="none")
        >>> record = backbone.record.given(start_time=0.25, window=128)
        >>> pipeline = FluxSRPipeline.from_backbone(backbone, PixelAutoencoder(), record)
        >>> pipeline(Image.new("RGB", (10, 7)), scale=2.5).images[0].size
        (25, 18)
    """

    model_cpu_offload_seq = "transformer->vae"  # type: ignore[assignment]  # diffusers says None alone
    _optional_components = ["vae", "prompt"]  # noqa: RUF012  # diffusers' own name and kind

    def __init__(
        self,
        transformer: ModelMixin,
        vae: ModelMixin | None = None,
        prompt: FixedPrompt | None = None,
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, prompt=prompt)
        self.register_to_config(record=record or {})
        self.record = StudentRecord.read(record or {}, "the pipeline's record")
        self.record.check_restores("the pipeline")

    @classmethod
    def from_backbone(cls, backbone: FluxBackbone, autoencoder: Any, record: StudentRecord) -> FluxSRPipeline:
        """Make a pipeline of what training left; they share their weights.

        Args:
            backbone: Without adapters (:func:`fluxsr.models.fuse_lora`, :func:`fluxsr.models.fold_modulation`).
            autoencoder: A :class:`fluxsr.models.LatentAutoencoder` or :class:`fluxsr.models.PixelAutoencoder`.
            record: What the model is, for example ``backbone.record.given(start_time=0.25)``.

        Raises:
            ValueError: If the backbone or the encoder has adapters, the two work on different latents, the model is a flow
                teacher, or its time is not known.
        """
        if backbone.adapters.names:
            raise ValueError(
                f"the backbone has adapters ({', '.join(backbone.adapters.names)}), which a pipeline's folder would lose: "
                "fuse the student's first (fuse_lora or fold_modulation)"
            )
        if getattr(autoencoder, "encoder_lora_rank", None) is not None:
            raise ValueError(
                "the autoencoder's encoder has an adapter, which a pipeline's folder would lose: load the autoencoder with the "
                "file that ExportBackbone wrote beside the student (load_autoencoder(encoder_lora=...)), which fuses it"
            )
        if backbone.latent_channels != autoencoder.latent_channels:
            raise ValueError(
                f"the model works on {backbone.latent_channels} latent channels and the autoencoder makes "
                f"{autoencoder.latent_channels}; give the one that it was trained with"
            )
        transformer: Any = backbone.transformer
        # A folded one holds its prompt.
        prompt = None if is_folded(transformer.config) else FixedPrompt.from_embedding(backbone.prompt)
        # Its own autoencoder lies beside it, with an adapter of the encoder fused.
        beside: dict[str, Any] = {"autoencoder": autoencoder.fingerprint(), "autoencoder_name": "", "encoder_lora": ""}
        record = replace(record, guidance=backbone.guidance, window=window_of(record, autoencoder), **beside)
        vae = autoencoder.vae if isinstance(autoencoder, LatentAutoencoder) else None
        return cls(transformer, vae, prompt, record.values())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[Any], **kwargs: Any) -> FluxSRPipeline:
        """Load a folder or hub repository that :meth:`save_pretrained` or :meth:`push_to_hub` wrote.

        Takes the arguments of every pipeline of diffusers; without ``torch_dtype`` the weights become float32.

        Raises:
            ValueError: If it can't be loaded or is something else, with what to do.
        """
        source = ModelSource(os.fspath(pretrained_model_name_or_path), kwargs.get("revision"))
        if source.kind != "hub":
            source.pipeline_config()
            config = source.transformer_config()
            family_of(config).class_of(config)  # diffusers takes classes of ours only once they are imported
        with source.explain():
            pipeline = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                own_memory(component)
        return pipeline

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Return ``model_index.json`` as diffusers does; one of version 0.2 gets the record that it lacks.

        Raises:
            ValueError: If it is another pipeline's.
        """
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if config.get("_class_name") != cls.__name__:
            raise ValueError(f"this is a {config.get('_class_name')}, not a {cls.__name__}, as fluxsr export writes it")
        for entry in config.values():  # folded transformers have moved since
            if isinstance(entry, list) and entry[1] in [family.folded for family in FAMILIES]:
                entry[0] = FOLDED_HOME
        record = record_in(config, str(config.get("_name_or_path", cls.__name__)))
        known = {
            name: entry for name, entry in config.items() if name.startswith("_") or isinstance(entry, list | tuple)
        }
        config.clear()
        config.update(known, record=record.values())
        return loaded

    # Fewer arguments than the parent in name alone: the others pass through as keywords.
    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write a folder that :meth:`from_pretrained` loads, with its model card.

        Raises:
            ValueError: For ``push_to_hub=True``; call :meth:`push_to_hub`.
        """
        if push_to_hub:
            raise ValueError("save_pretrained only writes a folder; upload with pipeline.push_to_hub(repository)")
        super().save_pretrained(str(save_directory), **kwargs)
        for file in [*Path(save_directory).glob("*/config.json"), Path(save_directory, "model_index.json")]:
            config = json.loads(file.read_text(encoding="utf-8"))
            if config.pop("_name_or_path", None) is not None:  # where it was loaded from is nobody's business
                file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        self._write_card(Path(save_directory), Path(save_directory).name)

    # The whole folder goes up, card and license included, so there is no choice of files or variant.
    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload FluxSRPipeline",
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload to a model hub, card and license included, and return the commit's address.

        Args:
            repo_id: ``user/name``; it is created if it isn't there.
            commit_message: Message of the upload.
            private: Whether a new repository is private.
            token: Token of the hub; by default the one of ``hf auth login``.
            create_pr: Open a pull request.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            self._write_card(Path(folder), repo_id)
            return str(
                hub.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=commit_message, create_pr=create_pr
                )
            )

    def fit_memory(self, memory: str, device: str = "auto", *, say: Callable[[str], None] = logger.info) -> MemoryPlan:
        """Bring a pipeline that lies in main memory into a form that fits a device's memory, and onto the device.

        Args:
            memory: Memory to fit into: 8GB, 12GB, 16GB, 24GB, any size, or auto for what is free.
            device: Device to run on: auto, cuda, mps or cpu.
            say: Called with what was chosen, and the expected peak.

        Raises:
            ValueError: If not even the leanest form fits.
        """
        place = choose_device(device)
        own = self.upscaler()
        plan = own.changed(**_on_meta(own)).plan(memory_limit(memory, place), place)
        say(plan.words())
        velocity: Any = own.fitted(plan, place).velocity
        self.register_modules(transformer=velocity.transformer)
        self.memory_plan: MemoryPlan | None = plan
        return plan

    def upscaler(self, **options: Any) -> Upscaler:
        """Return the upscaler of these parts; ``options`` (``tile``, ``color_fix``) are those of its class."""
        device = self._execution_device
        prompt = None if self.prompt is None else self.prompt.embedding
        velocity = FluxBackbone(self.transformer, prompt, self.record.guidance).eval()
        # Not velocity.to(device): moving the transformer is the pipeline's business, which may offload or quantize it.
        for name, buffer in list(velocity.named_buffers(recurse=False)):
            velocity.register_buffer(name, buffer.to(device), persistent=False)
        described = self.record.autoencoder
        autoencoder: Any
        if self.vae is None:
            autoencoder = PixelAutoencoder.described(described) if described else PixelAutoencoder()
        else:
            autoencoder = wrap_autoencoder(self.vae)
        plan = getattr(self, "memory_plan", None)
        assert self.record.start_time is not None, "the constructor has checked it"
        window = window_of(self.record, autoencoder) if plan is None else plan.window
        own = {"window": window, "device": device, "memory_plan": plan, "record": self.record}
        return Upscaler(velocity, autoencoder, self.record.start_time, **{**own, **options})

    def __call__(
        self,
        image: Any,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        steps: int = 1,
        return_dict: bool = True,
        strength: float = 1.0,
        longest: int | None = None,
        width: int | None = None,
        height: int | None = None,
        **options: Any,
    ) -> ImagePipelineOutput | tuple[list[Any]]:
        """Upscale an image, or a list of images.

        Args:
            image: PIL images, arrays or tensors; the results are of the same kind.
            scale: Any positive number; by default what the model was trained for.
            size: (height, width) of the result, instead of ``scale``.
            steps: Euler steps; a folded transformer takes one.
            return_dict: Give an ``ImagePipelineOutput`` and not a tuple.
            strength: How far to go, in ``[0, 2]``: 0 is the input, 1 what the model was trained for.
            longest: Longest side of the result in pixels, instead of ``scale``.
            width: Width of the result in pixels, instead of ``scale``.
            height: Height of the result in pixels, instead of ``scale``.
            **options: Options of :meth:`upscaler`, for example ``color_fix="none"``.

        Returns:
            The results as ``.images``, a list.

        Raises:
            ValueError: See :class:`fluxsr.inference.upscaler.Upscaler`.
        """
        upscaler = self.upscaler(**options)
        images = image if isinstance(image, list) else [image]
        results = [
            upscaler(one, scale, size, steps, longest=longest, width=width, height=height, strength=strength)
            for one in images
        ]
        return ImagePipelineOutput(images=results) if return_dict else (results,)

    def _write_card(self, folder: Path, name: str) -> None:
        card = model_card(
            self.record,
            folded=is_folded(self.transformer.config),
            dtype=str(self.transformer.x_embedder.weight.dtype).removeprefix("torch."),
            name=name,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")


def _on_meta(upscaler: Upscaler) -> dict[str, Any]:
    """Return an upscaler's networks without contents."""
    velocity: Any = upscaler.velocity
    transformer: Any = velocity.transformer
    with torch.device("meta"):
        empty = nn.Module.to(type(transformer).from_config(transformer.config), velocity.dtype)
        embeddings: Any = [None if one is None else one.to("meta") for one in velocity.prompt[:2]]
        prompt = PromptEmbedding(embeddings[0], embeddings[1], velocity.prompt_text)
        model = FluxBackbone(empty, prompt, velocity.guidance).eval()
    vae = getattr(upscaler.autoencoder, "vae", None)
    autoencoder = upscaler.autoencoder if vae is None else wrap_autoencoder(deepcopy(vae).to("meta"))
    return {"velocity": model, "autoencoder": autoencoder}
