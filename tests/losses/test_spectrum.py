import pytest
import torch

from fluxsr.losses import PeriodicityLoss, patch_artefact_energy
from fluxsr.losses.functional import periodicity


def photo() -> torch.Tensor:
    from skimage import data

    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255


def grid(period: int, strength: float) -> torch.Tensor:
    """A periodic pattern of the given standard deviation, tiled over 512x512."""
    pattern = torch.randn(1, 3, period, period, generator=torch.Generator().manual_seed(0))
    return strength * pattern.repeat(1, 1, -(-512 // period), -(-512 // period))[..., :512, :512]


@pytest.mark.parametrize("period", [4, 8, 16])
def test_photos_and_noise_have_none(period, generator):
    assert abs(float(patch_artefact_energy(photo(), period))) < 0.5
    assert abs(float(patch_artefact_energy(torch.rand(1, 3, 512, 512, generator=generator), period))) < 0.5


@pytest.mark.parametrize("period", [4, 8, 16])
def test_a_grid_is_heard_long_before_it_is_seen_and_grows(period):
    values = [float(patch_artefact_energy(photo() + grid(period, strength), period)) for strength in (0.01, 0.02, 0.05)]
    assert values[1] > 1
    assert values == sorted(values)


def test_another_period_is_not_mistaken_for_it():
    image = photo() + 0.05 * torch.sin(2 * torch.pi * torch.arange(512) / 10)  # period 10 shares no harmonic with 16
    assert abs(float(patch_artefact_energy(image, 16))) < 1


def test_per_image_and_half_precision():
    images = torch.cat([photo(), photo() + grid(16, 0.05)])
    values = patch_artefact_energy(images)
    assert values.shape == (2,)
    assert values[1] - values[0] > 3
    torch.testing.assert_close(patch_artefact_energy(images.half()), values, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("image", "period", "message"),
    [
        (torch.zeros(3, 64, 64), 4, r"\(3, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64), 1, "got 1"),
        (torch.zeros(1, 3, 64, 64), 16, "128 pixels"),
    ],
)
def test_errors(image, period, message):
    with pytest.raises(ValueError, match=message):
        patch_artefact_energy(image, period)


@pytest.mark.parametrize("period", [8, 16])
def test_periodicity_of_a_photo_with_a_grid_grows_with_its_amplitude(period):
    hr = photo()
    values = [
        float(periodicity(hr + grid(period, strength), hr, period)) for strength in (0.0, 0.001, 0.005, 0.02, 0.05)
    ]
    assert values[0] == 0
    assert values == sorted(values) and values[1] > 1e-3 and values[2] > 10 * values[1]


def test_periodicity_asks_nothing_of_an_error_without_a_period(generator):
    hr = photo()
    noise = 0.05 * torch.randn(hr.shape, generator=generator)
    smooth = 0.2 * torch.linspace(0, 1, 512).expand(1, 3, 512, 512)
    other = 0.05 * torch.sin(2 * torch.pi * torch.arange(512) / 10).expand(1, 3, 512, 512)
    with_grid = float(periodicity(hr + grid(16, 0.05), hr))
    for error in (noise, smooth, other):
        assert float(periodicity(hr + error, hr)) < 0.1 * with_grid


def test_periodicity_follows_a_color_grid_that_gray_does_not_see():
    hr = photo()
    pattern = grid(16, 0.02)
    colored = pattern - pattern.mean(dim=1, keepdim=True)
    assert abs(float(patch_artefact_energy(hr + colored) - patch_artefact_energy(hr))) < 0.01
    assert float(periodicity(hr + colored, hr)) > 0.5


def test_the_gradient_of_periodicity_removes_the_grid_and_leaves_the_photo():
    hr = photo()[..., 128:384, 128:384]
    sr = (hr + grid(16, 0.03)[..., :256, :256]).requires_grad_()
    optimizer = torch.optim.Adam([sr], lr=2e-3)
    own, before = (float(patch_artefact_energy(x)) for x in (hr, sr.detach()))
    error = float((sr.detach() - hr).square().mean())
    for _ in range(40):
        optimizer.zero_grad()
        periodicity(sr, hr).backward()
        optimizer.step()
    after = float(patch_artefact_energy(sr.detach()))
    assert before > own + 3 and after < own + 0.5
    assert float((sr.detach() - hr).square().mean()) < error / 2


def test_periodicity_gradcheck_reductions_and_dtypes(generator):
    hr = torch.rand(2, 3, 32, 40, generator=generator, dtype=torch.float64)
    pattern = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64).repeat(1, 1, 8, 10)
    sr = (hr + 0.3 * pattern + 0.01 * torch.randn(hr.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    small = sr.detach()[:1, :1, :16, :18].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: periodicity(x, hr[:1, :1, :16, :18], 2), small)
    each = periodicity(sr, hr, 4, reduction="none")
    assert each.shape == (2,) and each.dtype == torch.float64
    torch.testing.assert_close(PeriodicityLoss(4)(sr, hr), each.mean())
    torch.testing.assert_close(PeriodicityLoss(4, reduction="sum")(sr, hr), each.sum())
    alone = torch.stack([periodicity(sr[i : i + 1], hr[i : i + 1], 4) for i in range(2)])
    torch.testing.assert_close(alone, each)
    half = periodicity(sr.half(), hr.half(), 4, reduction="none")
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, each.float(), rtol=0.02, atol=0.01)
    with pytest.raises(ValueError, match="64 pixels"):
        periodicity(sr, hr, 8)
    with pytest.raises(ValueError, match="got 1"):
        PeriodicityLoss(1)
