from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from fluxsr.ledger import Ledger
from fluxsr.like_gpu import LikeDevice, like_device


def meta(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta", requires_grad=grad)


@pytest.mark.parametrize(("cuda", "norm"), [(True, torch.float32), (False, torch.bfloat16)])
def test_autocast_follows_the_devices_own_list(cuda, norm):
    x, weight = meta(2, 8), meta(8, 8)
    with like_device(LikeDevice(cuda)), torch.autocast("cpu", torch.bfloat16):
        y = F.linear(x, weight)
        assert y.dtype == torch.bfloat16
        assert F.layer_norm(y, (8,)).dtype == norm
        with torch.autocast("meta", enabled=False):
            assert F.linear(x, weight).dtype == torch.float32


@pytest.mark.parametrize(
    "name", ["linear", "matmul", "layer_norm", "mse_loss", "softmax", "gelu", "interpolate", "conv2d"]
)
def test_on_a_cpu_the_dtypes_are_those_of_real_tensors(name):
    def run(device: str) -> torch.dtype:
        x = torch.ones(1, 3, 8, 8, device=device)
        half = x.bfloat16()
        calls = {
            "linear": lambda: F.linear(x, torch.ones(8, 8, device=device)),
            "matmul": lambda: x @ x,
            "layer_norm": lambda: F.layer_norm(half, (8,)),
            "mse_loss": lambda: F.mse_loss(half, half),
            "softmax": lambda: half.softmax(-1),
            "gelu": lambda: F.gelu(half),
            "interpolate": lambda: F.interpolate(half, scale_factor=2, mode="nearest"),
            "conv2d": lambda: F.conv2d(x, torch.ones(3, 3, 3, 3, device=device)),
        }
        with torch.autocast("cpu", torch.bfloat16):
            return calls[name]().dtype

    expected = run("cpu")
    with like_device(LikeDevice(cuda=False)):
        assert run("meta") == expected


def test_attention_never_materializes_its_maps():
    query = meta(1, 2, 4096, 64, grad=True)
    ledger = Ledger()
    with like_device(LikeDevice()), ledger:
        F.scaled_dot_product_attention(query, query, query).sum().backward()
    assert ledger.peaks["setup"].total < 8 * query.numel() * 4 < 2 * 4096 * 4096 * 4
    assert sum(ledger.flops.values()) == pytest.approx(
        7 * 2 * 2 * 4096 * 4096 * 64, rel=0.01
    )  # 2 products forward, 5 back


def test_a_trained_weight_is_cast_once_in_a_step():
    weight = meta(64, 64, grad=True)
    ledger = Ledger()
    with like_device(LikeDevice()), ledger:
        with torch.autocast("cpu", torch.bfloat16):
            x = meta(1, 64, dtype=torch.bfloat16)
            outputs = [F.linear(x, weight), F.linear(x, weight)]
            assert ledger.total == 64 * 64 * 2 + 3 * 64 * 2
            with torch.autocast("cpu", enabled=False):
                pass
            assert ledger.total == 64 * 64 * 2 + 3 * 64 * 2
        assert ledger.total == 3 * 64 * 2
    assert len(outputs) == 2


def test_a_checkpointed_part_runs_again_under_the_same_rules():
    dtypes = []

    def part(x: torch.Tensor) -> torch.Tensor:
        y = F.layer_norm(F.linear(x, weight), (8,))
        dtypes.append(y.dtype)
        return y.square()

    weight = meta(8, 8, grad=True)
    with like_device(LikeDevice()):
        with torch.autocast("cpu", torch.bfloat16):
            loss = checkpoint(part, meta(2, 8, grad=True), use_reentrant=False).sum()
        loss.backward()
    assert dtypes == [torch.float32, torch.float32]


def test_the_fused_norm_keeps_its_input_and_a_number_per_row():
    x, weight = meta(16, 64, grad=True), meta(64)
    ledger = Ledger()
    with like_device(LikeDevice()), ledger:
        y = F.rms_norm(x, (64,), weight)
        assert ledger.total == 16 * 64 * 4 + 16 * 4
        y.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
