"""Makes a trained model deeper without a change of what it computes, so that it can be trained on with more capacity."""

from __future__ import annotations

from typing import Any

import torch

from fluxsr.models.flux import FluxBackbone


def expand_blocks(backbone: FluxBackbone, times: int = 2) -> FluxBackbone:
    """Return a deeper model that computes the same: each block is followed by copies of itself that add nothing yet.

    The output projections of the copies are zero, so each of them is the identity until training changes that. Training then
    starts from what the model has learned, not from random weights. This is the block expansion of LLaMA Pro
    (arXiv 2401.02415), applied to FLUX's single blocks. Only the copies are trained there, and the whole
    model here, if any of it was.

    Args:
        backbone: A model of single blocks alone, as ``nano`` is, without adapters.
        times: Number of blocks that each block becomes.

    Raises:
        ValueError: If the model has double blocks, adapters, a modulation table or no text stream, if it is quantized, or if
            ``times`` is below 1.

    Example:
        >>> from fluxsr.models import load_flux
        >>> deeper = expand_blocks(load_flux("nano", trainable="full"), times=2)
        >>> len(deeper.transformer.single_transformer_blocks)
        8
    """
    if times < 1:
        raise ValueError(f"times must be at least 1, got {times}")
    transformer: Any = backbone.transformer
    config = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
    if config["num_layers"]:
        raise ValueError(f"only single blocks are expanded, and this model has {config['num_layers']} double blocks")
    if backbone.adapters.names:
        raise ValueError(f"fuse the adapters before expanding the model: {', '.join(backbone.adapters.names)}")
    trainable = any(parameter.requires_grad for parameter in transformer.parameters())
    device = transformer.x_embedder.weight.device
    with torch.device(device):
        deeper = type(transformer)(**{**config, "num_single_layers": times * config["num_single_layers"]})
    deeper = deeper.to(backbone.dtype)
    state = {}
    for name, tensor in transformer.state_dict().items():
        stack, _, rest = name.partition("single_transformer_blocks.")
        if stack or not rest:
            state[name] = tensor
            continue
        number, _, inner = rest.partition(".")
        for copy in range(times):
            place = f"single_transformer_blocks.{int(number) * times + copy}.{inner}"
            state[place] = torch.zeros_like(tensor) if copy and inner.startswith("proj_out.") else tensor
    if state.keys() != deeper.state_dict().keys():
        raise ValueError("a model that is quantized, or has a modulation table or no text stream, can't be expanded")
    deeper.load_state_dict(state)
    checkpointing = transformer.gradient_checkpointing
    return FluxBackbone(deeper, backbone.prompt, backbone.guidance, checkpointing).requires_grad_(trainable)
