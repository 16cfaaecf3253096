from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.losses import DISTSLoss
from fluxsr.losses.dists import DISTSNet, L2Pool

from .test_perceptual import fewer_bits_change_little, read


@pytest.fixture(scope="module")
def files(random_lpips, tmp_path_factory: pytest.TempPathFactory):
    """Random VGG weights and random heads."""
    path = tmp_path_factory.mktemp("dists") / "dists_weights.pt"
    generator = torch.Generator().manual_seed(0)
    torch.save({name: torch.rand(1, 1475, 1, 1, generator=generator) for name in ("alpha", "beta")}, path)
    return random_lpips("vgg")[1], path


def test_l2_pool_equals_a_weighted_norm_written_out() -> None:
    x = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    pooled = L2Pool(2)(x)
    assert pooled.shape == (1, 2, 3, 4)
    window = torch.tensor([0.25, 0.5, 0.25])  # Hann, scaled to sum 1
    patch = x[0, 1, 1:4, 1:4]
    torch.testing.assert_close(pooled[0, 1, 1, 1], (torch.outer(window, window) * patch**2).sum().sqrt())


def test_zero_for_equal_images_symmetric_and_differentiable(files, pair: tuple[Tensor, Tensor]) -> None:
    loss = DISTSLoss(*files)
    assert loss(pair[0], pair[0]).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(loss(*pair), loss(pair[1], pair[0]))
    image = pair[0].clone().requires_grad_()
    value = loss(image, pair[1])
    value.backward()
    assert 0 < value.item() < 1
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("compute_dtype", [None, "bfloat16"])
def test_flat_images_are_finite(files, compute_dtype) -> None:
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    value = DISTSLoss(*files, compute_dtype=compute_dtype)(image, torch.full((1, 3, 32, 32), 0.5))
    value.backward()
    assert value.isfinite()
    assert image.grad.isfinite().all()


def test_fewer_bits_in_the_convolutions_change_little(files, pair: tuple[Tensor, Tensor]) -> None:
    fewer_bits_change_little(lambda dtype: DISTSLoss(*files, compute_dtype=dtype), pair, 0.02)


def test_published_values(assets) -> None:
    published = {"Canon_001_LR4": 0.184311, "Canon_011_LR4": 0.190307}
    loss = DISTSLoss(assets / "backbones", assets / "heads")
    folder = assets / "bench" / "realsr10"
    for name, value in published.items():
        sr_image, hr_image = (read(folder / kind / f"{name}.png") for kind in ("osediff", "HR"))
        assert loss(sr_image, hr_image).item() == pytest.approx(value, abs=1e-3)


def test_user_errors_name_the_value(files, tmp_path, pair) -> None:
    wrong = tmp_path / "wrong.pt"
    torch.save({"gamma": torch.ones(1)}, wrong)
    with pytest.raises(ValueError, match="alpha and beta, got gamma"):
        DISTSLoss(files[0], wrong)
    torch.save({"alpha": torch.ones(3), "beta": torch.ones(1475)}, wrong)
    with pytest.raises(ValueError, match=r"alpha must hold 1475 values, got shape \(3,\)"):
        DISTSNet.load(files[0], wrong)
    with pytest.raises(ValueError, match=r"at least 16 pixels"):
        DISTSLoss(*files)(pair[0][..., :8, :8], pair[1][..., :8, :8])
    with pytest.raises(ValueError, match="3 channels, got 4"):
        DISTSLoss(*files)(torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 32, 32))
