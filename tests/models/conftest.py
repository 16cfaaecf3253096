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

TINY2 = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": [4, 4, 4, 4],
}
both_families = pytest.mark.parametrize("family", ["flux.1", "flux.2"])


def tiny_transformer(seed: int = 0, family: str = "flux.1", **changes):
    """A random transformer with 4 latent channels."""
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

    kind, config = (FluxTransformer2DModel, TINY) if family == "flux.1" else (Flux2Transformer2DModel, TINY2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(**{**config, "guidance_embeds": False, **changes})


def tiny_prompt(tokens: int = 3, family: str = "flux.1") -> PromptEmbedding:
    generator = torch.Generator().manual_seed(5)
    embeds, pooled, negative = (torch.randn(1, *shape, generator=generator) for shape in ((tokens, 24), (12,), (2, 24)))
    if family == "flux.1":
        return PromptEmbedding(embeds, pooled, "a photo")
    return PromptEmbedding(embeds, None, "a photo", negative)


@pytest.fixture
def family() -> str:
    """FLUX.1, where a test is not run on both."""
    return "flux.1"


@pytest.fixture
def backbone(family) -> FluxBackbone:
    """A tiny backbone without text."""
    return FluxBackbone.from_transformer(tiny_transformer(family=family))


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
