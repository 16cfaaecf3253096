from __future__ import annotations

import pytest
import torch

from fluxsr.models import FluxBackbone, PromptEmbedding

TINY = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 12,
    "axes_dims_rope": [4, 6, 6],
}


def tiny_transformer(seed: int = 0, **changes):
    """A random FLUX transformer with 4 latent channels."""
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FluxTransformer2DModel(**{**TINY, "guidance_embeds": False, **changes})


def tiny_prompt(tokens: int = 3) -> PromptEmbedding:
    generator = torch.Generator().manual_seed(5)
    return PromptEmbedding(
        torch.randn(1, tokens, 24, generator=generator), torch.randn(1, 12, generator=generator), "a photo"
    )


@pytest.fixture
def backbone() -> FluxBackbone:
    """A tiny backbone without text."""
    return FluxBackbone.from_transformer(tiny_transformer())


@pytest.fixture
def state(generator):
    """A state and times."""
    return torch.randn(2, 4, 8, 12, generator=generator), torch.rand(2, generator=generator)


def perturb(backbone: FluxBackbone, seed: int = 0) -> None:
    """Give every LoRA matrix seeded values: B starts at zero, where every A has a zero gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
