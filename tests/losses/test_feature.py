from __future__ import annotations

import pytest
import torch

from fluxsr.losses import AttentionDiversificationLoss, AttentionMapDiversificationLoss
from fluxsr.losses.functional import attention_map_diversity, token_diversity


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_layers_and_batch_are_averaged_equally() -> None:
    features = [rand(2, 6, 4), rand(2, 9, 8) - 0.5]
    expected = torch.stack([token_diversity(layer) for layer in features]).mean()
    torch.testing.assert_close(AttentionDiversificationLoss()(features), expected)
    torch.testing.assert_close(AttentionDiversificationLoss()(tuple(features)), expected)
    maps = [rand(2, 3, 6, 6).softmax(-1), (9 * rand(2, 3, 8, 8)).softmax(-1)]
    expected = torch.stack([attention_map_diversity(layer) for layer in maps]).mean()
    torch.testing.assert_close(AttentionMapDiversificationLoss()(maps), expected)
    torch.testing.assert_close(AttentionMapDiversificationLoss()(maps[0]), attention_map_diversity(maps[0]).mean())


def test_one_for_identical_and_zero_for_paired_tokens() -> None:
    identical = rand(2, 1, 4).expand(2, 6, 4)
    paired = torch.cat([rand(2, 6, 4), -rand(2, 6, 4)], dim=1)
    loss = AttentionDiversificationLoss()
    assert loss([identical]).item() == pytest.approx(1, abs=1e-6)
    assert loss([paired]).item() == 0
    assert loss([identical, paired]).item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_descending_makes_tokens_differ(dtype: torch.dtype) -> None:
    tokens = (rand(1, 8, 4) + 0.5).to(dtype).requires_grad_()
    loss = AttentionDiversificationLoss()
    before = loss([tokens])
    before.backward()
    assert tokens.grad.dtype == dtype
    assert before.dtype == torch.float32
    with torch.no_grad():
        assert loss([tokens - tokens.grad]) < before


@pytest.mark.parametrize("loss", [AttentionDiversificationLoss(), AttentionMapDiversificationLoss()], ids=repr)
def test_user_errors_name_the_value(loss: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="empty"):
        loss([])
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        loss([torch.zeros(2, 3)])
    shape = (6, 4) if isinstance(loss, AttentionDiversificationLoss) else (3, 6, 6)
    with pytest.raises(ValueError, match="differ in batch size"):
        loss([torch.zeros(2, *shape), torch.zeros(3, *shape)])


def test_a_bare_tensor_is_not_taken_for_layers() -> None:
    with pytest.raises(ValueError, match="wrap it in a list"):
        AttentionDiversificationLoss()(torch.zeros(2, 3, 4))
