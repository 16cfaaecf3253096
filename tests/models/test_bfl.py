"""BFL's names: diffusers' own converter reads back what was written."""

from __future__ import annotations

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

from fluxsr.models import fold_modulation, load_flux
from fluxsr.models.bfl import to_bfl
from tests.models.conftest import tiny_transformer


def test_diffusers_own_converter_gives_the_weights_back():
    with torch.device("meta"):  # the converter knows FLUX.1's own width alone
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    # Each weight holds a number of its own, in a byte; the last modulation has two, for its halves change places.
    state = {}
    for number, (key, tensor) in enumerate(model.state_dict().items()):
        state[key] = torch.tensor(number % 120, dtype=torch.int8).expand(tensor.shape)
    half = len(state["norm_out.linear.bias"]) // 2
    state["norm_out.linear.bias"] = torch.arange(2, dtype=torch.int8).repeat_interleave(half)
    written = to_bfl(state)
    assert "single_blocks.0.linear1.weight" in written and "final_layer.adaLN_modulation.1.weight" in written
    back = convert_flux_transformer_checkpoint_to_diffusers(written)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_rows_of_joined_matrices_keep_their_order():
    state = tiny_transformer().state_dict()
    joined = to_bfl(state)["double_blocks.1.txt_attn.qkv.weight"]
    names = ("add_q_proj", "add_k_proj", "add_v_proj")
    parts = [state[f"transformer_blocks.1.attn.{name}.weight"] for name in names]
    assert all(torch.equal(one, part) for one, part in zip(joined.chunk(3), parts, strict=True))


def test_what_has_no_such_names_is_refused():
    adapted = load_flux("nano", trainable="lora", lora_rank=2)
    with pytest.raises(ValueError, match="base_layer"):
        to_bfl(adapted.transformer.state_dict())
    folded = fold_modulation(load_flux("nano", trainable="none"), t=0.25)
    with pytest.raises(ValueError, match="layout"):
        to_bfl(folded.transformer.state_dict())
