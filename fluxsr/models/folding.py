"""Folds a one-step model: at a fixed time, guidance and prompt it replaces FLUX's modulation layers, 27 %, by constants.

Every AdaLN modulation linear sees one vector made of the time, the guidance and the pooled prompt. A one-step student
runs at one time with one prompt, so each of these layers is replaced by its output. The output is computed once, with the
same operations that the whole model would run, so that the folded model gives the same bits.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.models.adapters import LoraFile, lora_layers, lora_targets, read_lora
from fluxsr.models.devices import check_torch
from fluxsr.models.families import Conditions, Family, family_of, is_folded
from fluxsr.models.flux import FluxBackbone, check_guidance
from fluxsr.models.prompts import PromptEmbedding, no_prompt, own_prompt
from fluxsr.models.sources import ModelSource, StoredWeights
from fluxsr.models.stand_ins import drop_text_stream, has_text_stream, table_of


@torch.no_grad()
def fold_modulation(backbone: FluxBackbone, t: float = 0.25, *, fuse: bool = False) -> FluxBackbone:
    """Return the velocity model that ``backbone`` is at time ``t``, without the layers that are constant there.

    At batch size 1 the output is bit for bit that of ``backbone``. The given backbone stays as it is and can be used on:
    all weights that go unchanged into the folded model are shared, not copied. Only fusing an adapter makes new tensors,
    of the adapted linears; where these don't fit beside the old ones (12 B parameters), use :func:`load_folded`.

    Args:
        backbone: A backbone with the prompt, guidance and default role (the student, if there is one) that are folded.
        t: The time of the one step, in ``[0, 1]``: the student's start time.
        fuse: Add the default role's adapter to the weights: faster, and equal to rounding (3e-7 in float32). The default
            keeps it apart, shared with ``backbone``.

    Returns:
        A backbone with a folded transformer (:mod:`fluxsr.models.folded`), which raises ``ValueError`` for any
        other time, guidance or prompt. It saves and loads as every backbone (``save``, ``load_flux``).

    Raises:
        ValueError: If ``t`` is not in ``[0, 1]`` or the backbone is folded already.
    """
    transformer, family = backbone.transformer, backbone.family
    if is_folded(transformer.config):
        raise ValueError(f"this model is folded already, at t = {transformer.config.t}; fold the one it was made from")
    _refuse_table(backbone)
    role, prompt = backbone.default_role, backbone.prompt
    folded = _empty(family, transformer.config, t, prompt, backbone.guidance)
    state = _plain_state(transformer, role if fuse else None)
    with backbone.adapters.use(role):
        # The layers themselves make their constants, in the dtype and with the adapter that they run with: computed in a
        # wider type the constants would be better and the output no longer the same bits.
        embedder = transformer.get_submodule(family.embedder)
        features = family.embed(embedder, t, backbone.conditions, backbone.dtype)
        for name, linear in transformer.named_modules():
            if family.modulation.fullmatch(name):
                state[f"{name}.value"] = linear(features)
    _fill(folded, state, prompt, backbone.dtype)
    result = _like(backbone, FluxBackbone(folded), t)
    if role is not None and not fuse:
        own = {name for name, module in folded.named_modules() if isinstance(module, nn.Linear)}
        for name, layer in lora_layers(transformer).items():
            if name in own:
                folded.set_submodule(name, layer)
        result.adapters.names = [role]
        result.adapters.active = backbone.adapters.active  # the list that the shared layers read
        result.default_role = role
    return result


@torch.no_grad()
def load_folded(
    source: str,
    *,
    t: float = 0.25,
    prompt: PromptEmbedding | None = None,
    guidance: float | None = None,
    lora: str | Path | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> FluxBackbone:
    """Fold while loading: one tensor at a time, and a modulation weight never reaches the device.

    Each modulation weight is read, gives its constant on the CPU and is dropped, so the peak is the folded model and one
    tensor. An adapter is fused on the way, the constants' share of it too.

    Args:
        source: Source of a whole FLUX: a hub id, a local folder in diffusers' layout (a pipeline or a transformer, in one file
            or sharded), a ``.safetensors`` file of this library, or a shipped name.
        t: The time of the one step, in ``[0, 1]``.
        prompt: Cached embeddings; ``None``: those of a FluxSR pipeline, else no text tokens and a zero pooled vector.
        guidance: Guidance strength, for models with a guidance embedding; by default the student's own.
        lora: Adapter file (or folder) to fuse.
        dtype: Name of the weights' torch dtype.
        device: Device of the folded model.
        revision: Revision of the hub repository.

    Raises:
        ValueError: If something can't be loaded or doesn't fit, naming it and what to do.
    """
    checkpoint = StoredWeights(ModelSource(source, revision))
    if is_folded(checkpoint.config):
        raise ValueError(f"{source} is folded already, at t = {checkpoint.config['t']}: load it with load_flux")
    family, kind = family_of(checkpoint.config), getattr(torch, dtype)
    adapter = None if lora is None else read_lora(lora, family)
    if adapter is not None:
        for name in lora_targets(adapter.state):
            if f"{name}.weight" not in checkpoint.files:
                raise ValueError(f"{lora} adapts {name!r}, which {source} lacks: it was made for another base")
        adapter.record.check_base(adapter.path, checkpoint.source.public_name, checkpoint.config)
    # What an adapter was trained with comes before what its base says.
    record = checkpoint.source.record if adapter is None else adapter.record
    if guidance is None and checkpoint.config["guidance_embeds"]:
        guidance = record.guidance

    def read(name: str) -> Tensor:
        tensor = checkpoint.read(name)
        # A copy: a view of the file would keep all of it mapped, and at an odd address it would round otherwise.
        return (tensor if adapter is None else _updated(tensor, name, adapter)).to(kind, copy=True)

    with torch.device("meta"):
        whole: Any = family.class_of(checkpoint.config)(**checkpoint.config)
    if prompt is None:
        prompt = own_prompt(checkpoint.source) or no_prompt(whole.config)
    record.tell_differences(lora or source, guidance=guidance, prompt_digest=prompt.digest)
    folded = _empty(family, whole.config, t, prompt, guidance)
    # Of the whole model the time embedder alone gets weights, since the constants are made from its output.
    embedder = whole.get_submodule(family.embedder)
    embedder.load_state_dict({key: read(f"{family.embedder}.{key}") for key in embedder.state_dict()}, assign=True)
    conditions = Conditions(prompt.prompt_embeds, prompt.pooled_prompt_embeds, guidance)
    features = family.embed(embedder, t, conditions, kind)
    state = {}
    for key in folded.state_dict():
        if key.endswith(".linear.value"):
            name = key.removesuffix(".value")
            bias = None if whole.get_submodule(name).bias is None else read(f"{name}.bias")
            state[key] = nn.functional.linear(features, read(f"{name}.weight"), bias).to(device)
        elif key not in ("prompt_embeds", "pooled_prompt_embeds"):
            state[key] = read(key).to(device)
    _fill(folded, state, prompt, kind)
    result = FluxBackbone(folded.to(device)).eval()
    result.base = checkpoint.source.public_name
    result.source = replace(record, start_time=t)
    return result


@torch.no_grad()
def fuse_lora(backbone: FluxBackbone) -> FluxBackbone:
    """Return a backbone without adapters whose weights hold the default role's; the others are shared with the given.

    Args:
        backbone: A backbone with a default role, whose adapter is added to the weights; it is left as it was.
    """
    transformer = backbone.transformer
    _refuse_table(backbone)
    with torch.device("meta"):
        plain = type(transformer).from_config(transformer.config)
        if not has_text_stream(transformer) and has_text_stream(plain):
            drop_text_stream(plain, backbone.family)
    plain.load_state_dict(_plain_state(transformer, backbone.default_role), assign=True)
    return _like(backbone, FluxBackbone(plain.requires_grad_(False), backbone.prompt, backbone.guidance))


def compile_blocks(backbone: FluxBackbone, **options: Any) -> FluxBackbone:
    """Compile the repeated blocks of a backbone, in place, and return it: once per kind, not once per block.

    Args:
        backbone: Folded or not.
        options: Options of ``torch.compile``, for example ``dynamic=True`` where image sizes vary.

    Raises:
        ValueError: If torch is older than 2.11.
    """
    check_torch("2.11", "compiling the blocks")
    backbone.transformer.compile_repeated_blocks(**options)
    return backbone


def _like(backbone: FluxBackbone, made: FluxBackbone, t: float | None = None) -> FluxBackbone:
    """Return a backbone that was made of another one, with what is known of that; ``t``: the time that it was folded at."""
    made.base = backbone.base
    made.source = backbone.source.given(start_time=t)
    return made.eval()


def _refuse_table(backbone: FluxBackbone) -> None:
    if table_of(backbone.transformer, backbone.family) is not None:
        raise ValueError(
            "this model has a modulation table, made for training, and lacks the layers themselves: load the base again, with "
            "the adapter (load_flux(..., lora_weights=...)), or fold while loading (load_folded)"
        )


def _empty(family: Family, config: Any, t: float, prompt: PromptEmbedding, guidance: float | None) -> Any:
    """Return a folded transformer without memory."""
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1] (0 is data, 1 is noise), got {t}")
    check_guidance(config, guidance)
    architecture = {key: value for key, value in config.items() if not key.startswith("_")}
    tokens = prompt.prompt_embeds.shape[1]
    with torch.device("meta"):
        folded = family.class_of({"t": t})(**architecture, t=t, guidance=guidance, text=prompt.text, text_tokens=tokens)
    return folded.requires_grad_(False).eval()


def _fill(folded: nn.Module, state: dict[str, Tensor], prompt: PromptEmbedding, dtype: torch.dtype) -> None:
    """Give a folded transformer its tensors, without copying them; what it has no place for is left out."""
    state["prompt_embeds"] = prompt.prompt_embeds.to(dtype)
    if prompt.pooled_prompt_embeds is not None:
        state["pooled_prompt_embeds"] = prompt.pooled_prompt_embeds.to(dtype)
    folded.load_state_dict({key: state[key] for key in folded.state_dict()}, assign=True)


def _plain_state(transformer: nn.Module, role: str | None) -> dict[str, Tensor]:
    """Return the weights under the names of a model without adapters, with the role's fused into them."""
    layers = lora_layers(transformer)
    inside = tuple(f"{name}." for name in layers)
    state = {key: tensor for key, tensor in transformer.state_dict().items() if not key.startswith(inside)}
    for name, layer in layers.items():
        base = layer.get_base_layer()
        if role is not None:  # added in float32 to a copy, and rounded once
            dtype = base.weight.dtype
            twin = copy.deepcopy(layer).to(torch.promote_types(dtype, torch.float32))
            twin.merge(adapter_names=[role])
            base = twin.get_base_layer().to(dtype)
        state |= {f"{name}.{key}": tensor for key, tensor in base.state_dict().items()}
    return state


def _updated(tensor: Tensor, name: str, adapter: LoraFile) -> Tensor:
    """Return a weight with an adapter's update added in float32, if it has one."""
    module = f"transformer.{name.removesuffix('.weight')}"
    if not name.endswith(".weight") or f"{module}.lora_A.weight" not in adapter.state:
        return tensor
    down, up = (adapter.state[f"{module}.lora_{side}.weight"].float() for side in "AB")
    if (up.shape[0], down.shape[1]) != tensor.shape or up.shape[1] != down.shape[0]:
        raise ValueError(
            f"{adapter.path} adapts {module!r} as a layer of {up.shape[0]}x{down.shape[1]}, but it has shape "
            f"{tuple(tensor.shape)}: it was made for another base"
        )
    return tensor.float() + up @ down
