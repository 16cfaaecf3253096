"""Adapts an autoencoder's encoder with a LoRA: trained with the student, kept beside its file, fused for inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from fluxsr.digest import file_digest
from fluxsr.models.adapters import is_adapter_parameter, lora_layers
from fluxsr.models.weight_files import is_writer, read_safetensors, whole, write_safetensors

NAME = "encoder"


def add_encoder_lora(vae: nn.Module, rank: int) -> None:
    """Add an adapter to every convolution and linear of a VAE's encoder; it starts without effect and alone is trainable."""
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"encoder_lora_rank must be at least 1, got {rank}")
    targets = [
        name
        for name, module in vae.named_modules()
        if name.startswith("encoder.") and isinstance(module, nn.Conv2d | nn.Linear)
    ]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    # Drawn on the CPU, so that a seed gives the same adapter anywhere; peft moves it to its layer's device.
    with torch.device("meta" if next(vae.parameters()).is_meta else "cpu"):
        inject_adapter_in_model(config, vae, adapter_name=NAME)
    for name, parameter in vae.named_parameters():
        parameter.requires_grad_(is_encoder_lora(name))
        if is_encoder_lora(name):
            parameter.data = parameter.data.float()  # small steps are lost in bfloat16
    active = [NAME]
    for layer in lora_layers(vae).values():
        layer._active_adapter = active  # one list for all, as the transformer's adapters have it


def is_encoder_lora(name: str) -> bool:
    """Say whether a parameter belongs to the encoder's adapter."""
    return is_adapter_parameter(name, NAME)


@contextmanager
def encoder_lora_off(vae: nn.Module) -> Iterator[None]:
    """Run the body with the frozen encoder alone."""
    active = next(iter(lora_layers(vae).values()))._active_adapter
    active.clear()
    try:
        yield
    finally:
        active.append(NAME)


def encoder_lora_state(vae: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's tensors under peft's keys, ``encoder.<module>.lora_A.weight``; they share the parameters' memory."""
    from peft.utils import get_peft_model_state_dict

    return get_peft_model_state_dict(vae, adapter_name=NAME)


def encoder_lora_path(student: str | Path) -> Path:
    """Return where the encoder's adapter lies: beside the student's file, for example ``backbone_encoder.safetensors``."""
    path = Path(student)
    return path.with_name(f"{path.stem}_encoder.safetensors")


def save_encoder_lora(vae: nn.Module, student: str | Path) -> str:
    """Write the adapter beside a student's file that is about to be written; return the digest that its record must say.

    In a distributed run every process calls it, and the first one writes.
    """
    state = {key: whole(tensor) for key, tensor in encoder_lora_state(vae).items()}
    if not is_writer():
        return ""
    path = encoder_lora_path(student)
    write_safetensors(path, state, {"format": "pt"})
    return file_digest(path)


def copy_encoder_lora(path: str | Path, student: str | Path) -> str:
    """Write an adapter's file beside another student's; return the digest that its record must say."""
    write_safetensors(encoder_lora_path(student), *read_safetensors(path))
    return file_digest(encoder_lora_path(student))


def encoder_lora_of(student: str | Path | None, digest: str) -> str | None:
    """Return the file of the encoder's adapter that a student was trained with, ``None`` where it was trained without."""
    if student is None or not digest:
        return None
    path = encoder_lora_path(student)
    if not path.is_file():
        raise ValueError(f"{student} was trained with an adapted encoder, and {path} is missing: put it beside")
    if file_digest(path) != digest:
        raise ValueError(f"{path} is not the encoder's adapter that {student} was trained and written with")
    return str(path)


def fuse_encoder_lora(vae: nn.Module, path: str | Path) -> None:
    """Put the adapter of a file into the encoder's weights, in place."""
    state, _ = read_safetensors(path)
    add_encoder_lora(vae, next((tensor.shape[0] for key, tensor in state.items() if ".lora_A." in key), 1))
    own = encoder_lora_state(vae)
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in state.items()}:
        raise ValueError(f"{path} is no adapter of this encoder")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
    for name, layer in lora_layers(vae).items():
        layer.merge()
        vae.set_submodule(name, layer.get_base_layer())
