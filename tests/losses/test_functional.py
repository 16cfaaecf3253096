from __future__ import annotations

import pytest
import torch

from fluxsr.losses.functional import (
    attention_map_diversity,
    charbonnier,
    l1,
    mse,
    token_diversity,
    total_variation_map,
)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_total_variation_map_equals_equation_20_written_out() -> None:
    image = rand(2, 3, 5, 4)
    expected = torch.zeros_like(image)
    for i in range(5):
        for j in range(4):
            if i < 4:
                expected[..., i, j] += (image[..., i + 1, j] - image[..., i, j]).abs()
            if j < 3:
                expected[..., i, j] += (image[..., i, j + 1] - image[..., i, j]).abs()
    torch.testing.assert_close(total_variation_map(image), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_total_variation_map_keeps_shape_dtype_and_range(dtype: torch.dtype) -> None:
    checkers = (torch.arange(6)[:, None] + torch.arange(6)).remainder(2).to(dtype).expand(1, 3, 6, 6)
    tv = total_variation_map(checkers)
    assert tv.shape == checkers.shape
    assert tv.dtype == dtype
    assert tv.max() == 2
    assert tv[..., -1, -1].abs().max() == 0
    assert total_variation_map(torch.full((1, 3, 4, 4), 0.7, dtype=dtype)).abs().max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1, 4)])
def test_total_variation_map_of_single_rows_and_columns(shape: tuple[int, ...]) -> None:
    assert total_variation_map(rand(*shape)).shape == shape


def test_token_diversity_equals_equation_22_written_out() -> None:
    tokens = rand(3, 7, 5) - 0.3
    mean = tokens.mean(dim=1, keepdim=True)
    expected = torch.nn.functional.cosine_similarity(tokens, mean, dim=2).mean(dim=1)
    torch.testing.assert_close(token_diversity(tokens), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_identical_tokens_cost_one(dtype: torch.dtype) -> None:
    tokens = (rand(2, 1, 8) + 0.1).to(dtype).expand(2, 16, 8)
    result = token_diversity(tokens)
    torch.testing.assert_close(result, torch.ones_like(result), rtol=0, atol=1e-6)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_tokens_in_pairs_cost_exactly_zero_in_any_order(seed: int, dtype: torch.dtype) -> None:
    half = (rand(2, 500, 16, seed=seed) - 0.2).to(dtype)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
    tokens = torch.cat([half, -half], dim=1)[:, order].requires_grad_()
    result = token_diversity(tokens)
    assert result.abs().max() == 0
    result.sum().backward()
    assert tokens.grad.isfinite().all()


def test_tokens_that_sum_to_zero_or_are_zero_are_finite() -> None:
    third = [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]
    tokens = torch.tensor([third, [[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 3], requires_grad=True)
    result = token_diversity(tokens)
    result.sum().backward()
    torch.testing.assert_close(result[1:].detach(), torch.tensor([1 / 3, 0.0]))
    assert result.isfinite().all() and tokens.grad.isfinite().all()


def test_token_diversity_ignores_the_tokens_common_scale() -> None:
    tokens = rand(1, 9, 4) - 0.4
    torch.testing.assert_close(token_diversity(tokens * 1e-6), token_diversity(tokens))


def test_token_diversity_is_float32_arithmetic_under_autocast() -> None:
    tokens = rand(2, 64, 32)
    expected = token_diversity(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        result = token_diversity(tokens)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


def attention(*shape: int, sharpness: float = 3.0) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * sharpness).softmax(dim=-1)


def test_attention_map_diversity_written_out() -> None:
    maps = attention(2, 4, 9, 9)
    rows = maps.mean(dim=1)
    for sample in range(2):
        mean_row = rows[sample].mean(dim=0)
        mean_row = torch.where(mean_row > 2 / 9, mean_row, 0.0)
        cosines = []
        for row in rows[sample]:
            kept = torch.where(row > 2 / 9, row, 0.0)
            lengths = kept.norm() * mean_row.norm()
            cosines.append((kept @ mean_row) / lengths if lengths > 0 else torch.tensor(0.0))
        torch.testing.assert_close(attention_map_diversity(maps)[sample], torch.stack(cosines).mean())


def test_attention_maps_with_equal_peaked_rows_cost_one_and_uniform_ones_nothing() -> None:
    peaked = torch.eye(8)[2].expand(1, 3, 8, 8)
    torch.testing.assert_close(attention_map_diversity(peaked), torch.ones(1))
    uniform = torch.full((1, 3, 8, 8), 1 / 8, requires_grad=True)
    result = attention_map_diversity(uniform)
    result.sum().backward()
    assert result.item() == 0
    assert uniform.grad.isfinite().all()


@pytest.mark.parametrize(
    "function",
    [
        lambda: (total_variation_map, (rand(1, 2, 4, 5, dtype=torch.float64),)),
        lambda: (token_diversity, (rand(2, 5, 4, dtype=torch.float64) - 0.3,)),
        lambda: (attention_map_diversity, (attention(1, 2, 5, 5).double(),)),
        lambda: (mse, (rand(1, 2, 3, 3, dtype=torch.float64), rand(1, 2, 3, 3, seed=1, dtype=torch.float64))),
        lambda: (l1, (rand(1, 2, 3, 3, dtype=torch.float64), rand(1, 2, 3, 3, seed=1, dtype=torch.float64))),
        lambda: (charbonnier, (rand(1, 2, 3, 3, dtype=torch.float64), rand(1, 2, 3, 3, seed=1, dtype=torch.float64))),
    ],
    ids=["total_variation_map", "token_diversity", "attention_map_diversity", "mse", "l1", "charbonnier"],
)
def test_gradients_in_float64(function) -> None:
    call, inputs = function()
    assert torch.autograd.gradcheck(call, tuple(tensor.requires_grad_() for tensor in inputs))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: total_variation_map(torch.zeros(4)), r"\(4,\)"),
        (lambda: total_variation_map(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), "uint8.*255"),
        (lambda: token_diversity(torch.zeros(2, 3, 4, 4)), r"\(2, 3, 4, 4\).*flatten"),
        (lambda: token_diversity(torch.zeros(2, 0, 4)), "empty"),
        (lambda: token_diversity(torch.zeros(2, 3, 4, dtype=torch.int64)), "int64"),
        (lambda: attention_map_diversity(torch.zeros(2, 3, 4, 5)), r"\(2, 3, 4, 5\)"),
        (lambda: charbonnier(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), epsilon=0), "epsilon=0"),
        (lambda: mse(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5)), r"\(1, 3, 4, 4\).*\(1, 3, 4, 5\)"),
    ],
)
def test_user_errors_name_the_value(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
