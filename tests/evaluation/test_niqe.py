import numpy as np
import pytest
import torch
from scipy.special import gamma

from fluxsr.evaluation.niqe import Pristine, _asymmetric_gaussian, load_pristine, niqe


def test_the_fit_finds_what_a_sample_was_drawn_from(generator):
    """An asymmetric generalised Gaussian: |u| gamma-distributed to the power 1 / shape, sides by their shares."""
    shape, left, right = 1.4, 0.5, 2.0  # the scales
    size = np.random.default_rng(0)
    magnitude = size.gamma(1 / shape, size=400_000) ** (1 / shape)
    is_left = size.random(400_000) < left / (left + right)
    values = torch.from_numpy(np.where(is_left, -left, right) * magnitude).view(1, 400, 1000)
    found = [float(part) for part in _asymmetric_gaussian(values)]
    np.testing.assert_allclose(found, [shape, left, right], rtol=0.02)


def test_the_shape_is_the_tables_nearest(generator):
    values = torch.randn(1, 96, 96, generator=generator, dtype=torch.float64)
    x = values.numpy().ravel()
    left, right = np.sqrt((x[x < 0] ** 2).mean()), np.sqrt((x[x > 0] ** 2).mean())
    ratio = left / right
    target = np.abs(x).mean() ** 2 / (x**2).mean() * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    table = np.arange(0.2, 10.0005, 0.001)
    shape = table[np.abs(gamma(2 / table) ** 2 / (gamma(1 / table) * gamma(3 / table)) - target).argmin()]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    found = [float(part) for part in _asymmetric_gaussian(values)]
    np.testing.assert_allclose(found, [shape, left * scale, right * scale], rtol=1e-9)


def test_noise_and_blur_cost_what_a_photo_does_not(assets, photo, generator):
    pristine = load_pristine(assets)
    wide = torch.cat([photo, photo.flip(-1)], dim=-1)
    clean = niqe(wide, pristine)
    noisy = niqe((wide + 0.2 * torch.randn(wide.shape, generator=generator)).clamp(0, 1), pristine)
    blurred = niqe(torch.nn.functional.avg_pool2d(wide, 9, 1, 4), pristine)
    assert clean < 6 and noisy > clean + 2 and blurred > clean + 2


def test_flat_blocks_are_left_out_and_what_lies_beyond_whole_blocks_is_not_seen(photo):
    pristine = Pristine(torch.zeros(36, dtype=torch.float64), torch.eye(36, dtype=torch.float64))
    wide = torch.cat([photo, photo.flip(-1)], dim=-1)[..., :192, :]
    value = niqe(wide, pristine)
    assert niqe(wide[..., : 5 * 96 + 20], pristine) == niqe(wide[..., : 5 * 96 + 5], pristine)
    flat = wide.clone()
    flat[..., :96, :96] = 0.5
    assert niqe(flat, pristine).isfinite() and niqe(flat, pristine) != value
    with pytest.raises(ValueError, match="fewer than two blocks with any texture"):
        niqe(torch.full((1, 3, 200, 200), 0.5), pristine)


def test_too_few_blocks_and_missing_parameters_are_named(photo, tmp_path, monkeypatch):
    pristine = Pristine(torch.zeros(36, dtype=torch.float64), torch.eye(36, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"at least two blocks of 96x96 pixels, got an image of 100x190"):
        niqe(photo[..., :100, :190], pristine)
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"niqe_pris_params.npz in the folder that FLUXSR_WEIGHTS names"):
        load_pristine()
    np.savez(tmp_path / "niqe_pris_params.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="doesn't hold mu_pris_param"):
        load_pristine()
