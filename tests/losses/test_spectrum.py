import pytest
import torch

from fluxsr.losses import patch_artefact_energy


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
        (torch.zeros(3, 64, 64), 4, r"shape \(B, C, H, W\), got \(3, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64), 1, "period must be at least 2 pixels, got 1"),
        (torch.zeros(1, 3, 64, 64), 16, "at least 8 periods = 128 pixels a side"),
    ],
)
def test_errors(image, period, message):
    with pytest.raises(ValueError, match=message):
        patch_artefact_energy(image, period)
