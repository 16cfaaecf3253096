import pytest
import torch
from diffusers import FluxPipeline

from fluxsr.models.packing import image_ids, pack, unpack


def test_pack_and_unpack_are_the_pipelines_own(generator):
    latents = torch.randn(2, 16, 8, 12, generator=generator)
    tokens = pack(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 2, 16, 8, 12))
    assert torch.equal(unpack(tokens, 8, 12), latents)


def test_ids_are_the_pipelines_own():
    expected = FluxPipeline._prepare_latent_image_ids(1, 4, 6, torch.device("cpu"), torch.float32)
    assert torch.equal(image_ids(8, 12), expected)


def test_errors():
    with pytest.raises(ValueError, match="7x8 don't divide into FLUX's 2x2 patches"):
        pack(torch.zeros(1, 4, 7, 8))
    with pytest.raises(ValueError, match=r"must have shape \(B, C, h, w\), got \(4, 8, 8\)"):
        pack(torch.zeros(4, 8, 8))
