import numpy as np
import pytest
import torch
from scipy.special import gamma

from fluxsr.evaluation.niqe import Pristine, _asymmetric_gaussian, _gray_levels, _normalized, load_pristine, niqe
from fluxsr.images.resize import imresize


def test_the_fit_finds_what_a_sample_was_drawn_from(generator):
    """An asymmetric generalized Gaussian: |u| gamma-distributed to the power 1 / shape, sides by their shares."""
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


def test_missing_and_other_parameters_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"niqe_pris_params.npz in the folder that FLUXSR_WEIGHTS names"):
        load_pristine()
    np.savez(tmp_path / "niqe_pris_params.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="doesn't hold mu_pris_param"):
        load_pristine()


def test_rounding_noise_in_flat_areas_and_between_levels_changes_nothing(photo, generator):
    """A sky is flat, and gray levels lie exactly between two: neither may hang on the last bits of the picture."""
    pristine = Pristine(torch.zeros(36, dtype=torch.float64), torch.eye(36, dtype=torch.float64))
    wide = torch.cat([photo, photo.flip(-1)], dim=-1)[..., :192, :384].double()
    wide[..., :70, :] = 0.8  # blocks that are flat in part
    wide[..., 100:150, 100:300] = (wide[..., 100:150, 100:300] * 255).div(50, rounding_mode="floor") * 50 / 255
    wide = (wide * 255).round() / 255
    value = niqe(wide, pristine)
    assert torch.equal(niqe(wide.float(), pristine), value)
    noise = 1e-7 * torch.randn(wide.shape, generator=generator, dtype=torch.float64)
    assert torch.equal(niqe(wide + noise, pristine), value)
    # The same picture mirrored and turned has the same statistics, but for which neighbor is which.
    normalized = _normalized(_gray_levels(wide))
    flat = normalized[..., 4:66, :]
    assert (flat == 0).all() and (normalized[..., 80:, :] != 0).any()
    half = imresize(_gray_levels(wide), (96, 192))
    assert (_normalized(half)[..., 5:30, :] == 0).all()


def test_levels_are_rounded_in_whole_numbers():
    image = torch.tensor([[0, 0, 0], [1, 1, 0], [250, 0, 250], [0, 0, 250], [5, 5, 5]]).T.view(1, 3, 1, 5) / 255
    assert _gray_levels(image).flatten().tolist() == [0, 1, 103, 28, 5]  # 28.5 to the even side; 103.25
    assert torch.equal(_gray_levels(image.double() + 1e-9), _gray_levels(image - 1e-7))
