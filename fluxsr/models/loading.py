"""Loading a FLUX backbone from a hub, a folder, a file of ours or an architecture's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fluxsr.models.architectures import FLUX_ARCHITECTURES, flux_architecture
from fluxsr.models.files import explain_loading, read_safetensors
from fluxsr.models.flux import FluxBackbone
from fluxsr.models.prompts import PromptEmbedding
from fluxsr.models.quantization import Quantization, quantization_config
from fluxsr.models.sources import architecture_of

ASSETS = Path(__file__).parent.parent / "assets"
# The names that come with weights inside the package, and the file of each.
SHIPPED = {
    "nano": "nano_teacher.safetensors",
    "nano-student": "nano_student.safetensors",
    "nano-flowsr": "nano_flowsr.safetensors",
}


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
    quantize: Quantization | None = None,
    gradient_checkpointing: bool = False,
    revision: str | None = None,
) -> FluxBackbone:
    """Load a FLUX backbone and say what of it is trained.

    Args:
        model: ``nano`` (the shipped teacher), ``nano-student`` (FluxSR's) or ``nano-flowsr``; a hub id
            (``black-forest-labs/FLUX.1-dev``); a local folder in diffusers' layout, of a pipeline or of a transformer alone; a
            ``.safetensors`` file made by this library (all of these folded or not); or, with ``weights=False``, the name of an
            architecture.
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
        quantize: ``int8``, ``fp8`` (torchao) or ``nf4`` (bitsandbytes, CUDA) for the frozen linears of a folder or hub id, done
            by diffusers while it loads; needs the extra ``quant``. Adapters stay in float32.
        gradient_checkpointing: recompute blocks in the backward pass.
        revision: of the hub repository.

    Raises:
        ValueError: if something can't be loaded or doesn't fit, naming it and what to do.
    """
    if trainable not in ("lora", "full", "none"):
        raise ValueError(f"trainable must be lora, full or none, got {trainable!r}")
    if quantize is not None and trainable == "full":
        raise ValueError(
            f"quantize={quantize!r} needs a frozen base, but trainable is 'full': train a LoRA, or don't quantise"
        )
    transformer = _load_transformer(model, weights, getattr(torch, dtype), revision, quantize)
    embedding = PromptEmbedding.load(prompt) if prompt is not None else None
    backbone = FluxBackbone(transformer, embedding, guidance, gradient_checkpointing)
    backbone.quantization = quantize
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


def _load_transformer(
    model: str, weights: bool, dtype: torch.dtype, revision: str | None, quantize: Quantization | None
) -> nn.Module:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    from fluxsr.models.checkpoints import own_memory

    if quantize is not None and (not weights or model in SHIPPED or model.endswith(".safetensors")):
        raise ValueError(f"quantize={quantize!r} takes a hub id or a folder in diffusers' layout, got {model!r}")
    if not weights:
        return _in_dtype(FluxTransformer2DModel(**flux_architecture(model)), dtype)
    if model in SHIPPED or model.endswith(".safetensors"):
        return _load_file(shipped_file(model) if model in SHIPPED else Path(model), dtype)
    if model in FLUX_ARCHITECTURES:
        raise ValueError(f"{model!r} names an architecture without shipped weights; give the hub id, or weights=False")
    local = Path(model)
    inside = (local / "config.json").is_file() and not (local / "transformer").is_dir()
    where: dict[str, Any] = {"subfolder": None if inside else "transformer", "revision": revision}
    how = {} if quantize is None else {"quantization_config": quantization_config(quantize)}
    with explain_loading(model):
        kind = _transformer_class(FluxTransformer2DModel.load_config(model, **where))
        return own_memory(kind.from_pretrained(model, torch_dtype=dtype, **where, **how))


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
    config = architecture_of(path, state, metadata)
    with torch.device("meta"):
        transformer = _transformer_class(config)(**config)
    # Copies: what was read may be views of the mapped file, which somebody may write anew.
    transformer.load_state_dict({key: tensor.to(dtype, copy=True) for key, tensor in state.items()}, assign=True)
    return transformer


def _in_dtype(transformer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast only where something changes: diffusers warns at every cast."""
    return transformer if dtype == torch.float32 else transformer.to(dtype)
