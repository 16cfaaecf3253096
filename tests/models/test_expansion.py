"""Deeper models that compute the same."""

from __future__ import annotations

import pytest
import torch

from fluxsr.models import FluxBackbone, expand_blocks, load_flux


@pytest.fixture
def nano() -> FluxBackbone:
    return load_flux("nano", trainable="full")


def velocity(model: FluxBackbone) -> torch.Tensor:
    state = torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(state, torch.full((1,), 0.25))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_deeper_model_computes_the_same(nano, times):
    deeper = expand_blocks(nano, times)
    assert len(deeper.transformer.single_transformer_blocks) == 4 * times
    assert torch.equal(velocity(deeper), velocity(nano))


def test_every_copy_receives_a_gradient_after_the_first_step(nano):
    deeper = expand_blocks(nano)
    state = torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(deeper.parameters(), 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        deeper(state, torch.full((1,), 0.25)).square().mean().backward()
        optimizer.step()
    copies = [deeper.transformer.single_transformer_blocks[i] for i in range(1, 8, 2)]
    assert all(p.grad is not None and bool(p.grad.any()) for c in copies for p in c.proj_mlp.parameters())


def test_the_models_share_no_memory(nano):
    before = velocity(nano)
    deeper = expand_blocks(nano)
    with torch.no_grad():
        for parameter in deeper.parameters():
            parameter.add_(1)
    assert torch.equal(velocity(nano), before)


def test_what_was_trained_is_trained(nano):
    assert all(p.requires_grad for p in expand_blocks(nano).parameters())
    assert not any(p.requires_grad for p in expand_blocks(nano.requires_grad_(False)).parameters())


def test_checkpointing_stays(nano):
    assert not expand_blocks(nano).transformer.gradient_checkpointing
    recomputing = load_flux("nano", trainable="full", gradient_checkpointing=True)
    assert expand_blocks(recomputing).transformer.gradient_checkpointing


def test_it_is_saved_and_loaded_as_any_model(nano, tmp_path):
    deeper = expand_blocks(nano)
    again = load_flux(str(deeper.save(tmp_path / "deeper.safetensors")), trainable="none")
    assert torch.equal(velocity(again), velocity(deeper))


def test_on_meta_nothing_is_computed():
    deeper = expand_blocks(load_flux("nano", trainable="full", device="meta"))
    assert all(p.is_meta for p in deeper.parameters())


@pytest.mark.parametrize(
    ("model", "options", "times", "named"),
    [
        ("nano2", {"weights": False, "trainable": "full"}, 2, "1 double"),
        ("nano", {}, 2, "student"),
        ("nano", {"trainable": "full"}, 0, "times"),
        ("nano", {"trainable": "full", "text_stream": False}, 2, "no text stream"),
    ],
)
def test_what_does_not_fit_is_refused(model, options, times, named):
    with pytest.raises(ValueError, match=named):
        expand_blocks(load_flux(model, **options), times)
