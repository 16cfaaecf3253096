"""Reads LoRA files as others write them: diffusers', peft's and kohya's keys, at the strength that a file asks for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr.models.families import Family
from fluxsr.models.student import lora_file
from fluxsr.models.weight_files import read_safetensors

METADATA = "lora_adapter_metadata"  # where diffusers keeps peft's configuration in a file's header

# Beginnings of keys that say who wrote a file, and what stands there in diffusers' keys.
_PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "")


def read_lora(path: str | Path, family: Family, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read an adapter file, or a folder that holds one, under diffusers' keys and at the strength that it asks for.

    The strength is ``alpha`` over the rank, from the header or from ``.alpha`` tensors. Where it is not 1, the second matrix of
    each pair is multiplied by it, so that the returned tensors need none.

    Args:
        path: A ``.safetensors`` file, or a folder with ``pytorch_lora_weights.safetensors``. Its keys may be diffusers',
            peft's, or kohya's (sd-scripts, ComfyUI trainers), which diffusers translates.
        family: Family of the base: the same name in another trainer's file is another layer there.
        device: Device of the tensors; on ``meta`` only the header is read.

    Raises:
        ValueError: If there is no such file, it is damaged, it holds no LoRA, or one in a format that is not read.
    """
    path = lora_file(path)
    state, metadata = read_safetensors(path, device)
    if any(family.foreign_keys.match(key) for key in state):
        state = _translated(path, state, family)
    pairs = {_renamed(key): tensor for key, tensor in state.items()}
    alphas = {key.removesuffix(".alpha"): float(tensor) for key, tensor in pairs.items() if _is_alpha(key, tensor)}
    pairs = {key: tensor for key, tensor in pairs.items() if not key.endswith(".alpha")}
    if not any(".lora_A." in key for key in pairs):
        raise ValueError(f"{path} holds no LoRA adapter in diffusers', peft's or kohya's format")
    header = _header(path, metadata)
    for key in [key for key in pairs if ".lora_B." in key]:
        module = key.split(".lora_B.")[0]
        rank = pairs[key].shape[1]
        scale = alphas[module] / rank if module in alphas else _scale(header, module.removeprefix("transformer."), rank)
        if scale != 1:
            pairs[key] = pairs[key] * scale
    return pairs


def _is_alpha(key: str, tensor: Tensor) -> bool:
    return key.endswith(".alpha") and not tensor.is_meta


def _renamed(key: str) -> str:
    prefix = next(one for one in _PREFIXES if key.startswith(one))
    key = key.removeprefix(prefix).removeprefix("transformer.")
    return f"transformer.{key.replace('.lora_down.', '.lora_A.').replace('.lora_up.', '.lora_B.')}"


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return peft's configuration of the transformer's adapter, if the file has one."""
    if METADATA not in metadata:
        return {}
    try:
        content = json.loads(metadata[METADATA])
    except ValueError as error:
        raise ValueError(f"{path} has a damaged header ({METADATA} is no JSON): download it again") from error
    if not isinstance(content, dict):
        return {}
    return {key.removeprefix("transformer."): value for key, value in content.items()}


def _scale(header: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what multiplies an adapter's update, as peft computes it."""
    alpha = header.get("lora_alpha", rank)
    for pattern, value in (header.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if header.get("use_rslora") else rank)


def _translated(path: Path, state: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Let diffusers translate BFL's names of layers, and kohya's, in which these are hidden."""
    from diffusers.loaders import lora_pipeline

    loader: Any = getattr(lora_pipeline, family.lora_loader)
    try:
        translated: Any = loader.lora_state_dict(dict(state))
    except Exception as error:
        raise ValueError(
            f"{path} is a LoRA in kohya's format, and diffusers can't translate it ({type(error).__name__}: {error}): convert "
            "it with sd-scripts' convert_diffusers_to_flux.py --reverse, or train with --save_format diffusers"
        ) from error
    return dict(translated)
