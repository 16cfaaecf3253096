from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.losses.lpips_net import LPIPSNet
from fluxsr.losses.perceptual_nano import WEIGHTS_FILE, PerceptualNano, load_perceptual_nano


@pytest.fixture(scope="module")
def net() -> PerceptualNano:
    return load_perceptual_nano()


def test_the_file_is_small_and_has_a_card() -> None:
    assert WEIGHTS_FILE.stat().st_size <= 2 * 2**20
    assert WEIGHTS_FILE.with_suffix(".md").is_file()


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 48), (101, 77)])
def test_zero_for_equal_images_symmetric_and_positive(net: PerceptualNano, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, *size, generator=generator) * 2 - 1 for _ in range(2))
    assert net(x, x.clone()).abs().max() == 0
    assert net(x, y).shape == (2, 1, 1, 1)
    torch.testing.assert_close(net(x, y), net(y, x))
    assert net(x, y).min() > 0


def test_heads_are_not_negative_and_nothing_trains(net: PerceptualNano) -> None:
    assert all((head >= 0).all() for head in net.heads)
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


def test_gradient_is_finite_even_for_flat_images(net: PerceptualNano) -> None:
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    net(image, torch.ones(1, 3, 32, 32)).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


def test_user_errors_name_the_value(net: PerceptualNano, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"at least 16 pixels.*\(1, 3, 15, 40\)"):
        net(torch.zeros(1, 3, 15, 40), torch.zeros(1, 3, 15, 40))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_perceptual_nano(tmp_path / "nowhere.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(WEIGHTS_FILE.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        load_perceptual_nano(damaged)


def photos() -> list[Tensor]:
    """Two crops each, 96x96 and 64x64, from photos that the network was never trained on."""
    data = pytest.importorskip("skimage.data", reason="the photos come with scikit-image")
    crops = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        pixels = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None].float() / 255
        height, width = pixels.shape[-2:]
        for top, left, side in ((height // 4, width // 4, 96), (height // 2, width // 2, 64)):
            crops.append(pixels[..., top : top + side, left : left + side])
    return crops


def versions(image: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Ten distortions; the last four are of kinds that training never showed."""

    def scaled(factor: float, mode: str) -> Tensor:
        small = F.interpolate(image, scale_factor=1 / factor, mode="area")
        smooth = {} if mode == "nearest" else {"align_corners": False}
        return F.interpolate(small, image.shape[-2:], mode=mode, **smooth)

    def noise() -> Tensor:
        return torch.randn(image.shape, generator=generator)

    speckle = torch.rand(1, 1, *image.shape[-2:], generator=generator)
    line = F.pad(image, (4, 4, 0, 0), mode="reflect").unfold(3, 9, 1).mean(-1)
    results = [
        scaled(2, "bicubic"),
        scaled(4, "bicubic"),
        scaled(4, "nearest"),
        image + 0.03 * noise(),
        image + 0.12 * noise(),
        image + 1.5 * (image - F.avg_pool2d(image, 5, 1, 2, count_include_pad=False)),
        torch.where(speckle < 0.03, (speckle < 0.015).float(), image),
        (image * 6).round() / 6,
        line,
        image * (1 + 0.3 * noise()[:, :1]),
    ]
    return [result.clamp(0, 1) for result in results]


def spearman(x: Tensor, y: Tensor) -> float:
    ranks = torch.stack([values.argsort().argsort().double() for values in (x, y)])
    return float(torch.corrcoef(ranks)[0, 1])


@torch.no_grad()
def test_it_ranks_as_lpips_vgg_does_on_photos_and_distortions_it_never_saw(net: PerceptualNano, backbones) -> None:
    vgg = LPIPSNet.load("vgg", backbones)
    generator = torch.Generator().manual_seed(0)
    ours, theirs, squared = [], [], []
    for photo in photos():
        others = torch.cat(versions(photo, generator))
        same = photo.expand_as(others)
        ours.append(net(others * 2 - 1, same * 2 - 1).flatten())
        theirs.append(vgg(others * 2 - 1, same * 2 - 1).flatten())
        squared.append((others - same).square().mean((1, 2, 3)))
    correlation = spearman(torch.cat(ours), torch.cat(theirs))
    assert correlation >= 0.85
    assert correlation > spearman(torch.cat(squared), torch.cat(theirs))
    # Of the same scale too, so that a weight tuned with one is of use with the other.
    ratio = (torch.cat(ours).mean() / torch.cat(theirs).mean()).item()
    assert abs(math.log(ratio)) < math.log(1.5)


@pytest.mark.parametrize("index", [1, 5, 7])
def test_descending_on_it_lowers_lpips_vgg(net: PerceptualNano, backbones, index: int) -> None:
    vgg = LPIPSNet.load("vgg", backbones)
    hr_image = photos()[index]
    start = F.interpolate(F.interpolate(hr_image, scale_factor=1 / 3, mode="area"), (64, 64), mode="bicubic")
    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.003)
    for _ in range(100):
        optimizer.zero_grad()
        loss = net(image * 2 - 1, hr_image * 2 - 1).sum() + 0.1 * (image - hr_image).abs().mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        before, after = (vgg(x.clamp(0, 1) * 2 - 1, hr_image * 2 - 1).item() for x in (start, image))
    assert after < 0.8 * before
