"""Loads taesd's own files as diffusers' ``AutoencoderTiny``: two flat lists of layers, an encoder's and a decoder's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.models.weight_files import read_safetensors


def load_taesd(encoder: Path, decoder: Path, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return the ``AutoencoderTiny`` of two files in taesd's layout, ``taef1_encoder.safetensors`` and its decoder.

    Args:
        encoder: File of the encoder.
        decoder: File of the decoder.
        dtype: Dtype of the weights.
        device: Device of the weights. On ``meta`` only the headers are read.

    Raises:
        ValueError: If a file is damaged or holds something else, naming it.
    """
    from diffusers import AutoencoderTiny

    state: dict[str, Tensor] = {}
    for path, part, shift in ((encoder, "encoder", 0), (decoder, "decoder", 1)):
        for key, tensor in read_safetensors(path, device)[0].items():
            index, _, rest = key.removeprefix(f"{part}.").partition(".")
            if not index.isdigit():
                raise ValueError(f"{path} is no {part} in taesd's layout: it holds {key!r}")
            # taesd's decoder begins with its clamp, which diffusers has outside of the list.
            state[f"{part}.layers.{int(index) - shift}.{rest}"] = tensor.to(dtype, copy=True)
    last = max((int(key.split(".")[2]) for key in state if key.startswith("encoder")), default=0)
    channels = state[f"encoder.layers.{last}.weight"].shape[0] if state else 0
    with torch.device("meta"):
        vae: Any = AutoencoderTiny(latent_channels=channels)
    own = vae.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise ValueError(f"{encoder} and {decoder} are no autoencoder in taesd's layout: {wrong[0]} does not fit")
    vae.load_state_dict(state, assign=True)
    return vae
