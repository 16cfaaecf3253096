import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from fluxsr.evaluation import METRICS, Settings, load_metric
from fluxsr.losses import LPIPSLoss, patch_artefact_energy


@pytest.fixture
def pair(photo, generator):
    noisy = (photo + 0.05 * torch.randn(photo.shape, generator=generator)).clamp(0, 1)
    return (noisy * 255).round() / 255, photo


def luma_of(image: torch.Tensor) -> np.ndarray:
    return rgb2ycbcr(image[0].permute(1, 2, 0).double().numpy())[..., 0]


def test_psnr_is_scikit_images(pair):
    ours, theirs = map(luma_of, pair)
    expected = peak_signal_noise_ratio(theirs, ours, data_range=255)
    assert load_metric("psnr").score(*pair) == pytest.approx(expected, abs=1e-4)
    pixels = [(image[0] * 255).round().byte().numpy() for image in pair]
    assert load_metric("psnr_rgb").score(*pair) == pytest.approx(peak_signal_noise_ratio(*pixels), abs=1e-4)


def test_the_crop_is_taken_off_each_side(pair):
    ours, theirs = (luma_of(image)[4:-4, 4:-4] for image in pair)
    expected = peak_signal_noise_ratio(theirs, ours, data_range=255)
    assert load_metric("psnr", Settings(crop=4)).score(*pair) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="too few to cut 125"):
        load_metric("psnr", Settings(crop=125)).score(*pair)


def test_ssim_is_torchmetrics_on_the_luma(pair):
    images = (torch.from_numpy(luma_of(image) / 255)[None, None] for image in pair)
    expected = float(structural_similarity_index_measure(*images, data_range=1.0))
    assert load_metric("ssim").score(*pair) == pytest.approx(expected, abs=5e-5)  # half of the last printed digit


def test_ssim_of_the_tables_is_scikit_images_on_the_rounded_luma(pair):
    # Of a photo and its noisy copy no structures oppose each other, so the clamp does nothing here.
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    smooth = [torch.nn.functional.avg_pool2d(image, 3, 1) for image in pair]
    smooth[0] = smooth[1] * 0.95
    expected = structural_similarity(*(luma_of(image).round() for image in smooth), **options)
    assert load_metric("ssim_tables").score(*smooth) == pytest.approx(expected, abs=1e-6)
    assert load_metric("ssim_tables").score(pair[1], pair[1]) == pytest.approx(1)


def test_ssim_of_the_tables_takes_opposed_structures_for_nothing(generator):
    image = torch.rand(1, 3, 32, 32, generator=generator)
    assert load_metric("ssim").score(image, 1 - image) < 0 <= load_metric("ssim_tables").score(image, 1 - image)


def test_perceptual_metrics_and_the_artefact_meter_are_those_of_the_losses(pair):
    assert load_metric("lpips_nano").score(*pair) == pytest.approx(float(LPIPSLoss("nano")(*pair)), rel=1e-6)
    metric = load_metric("artefact_db", Settings(period=8))
    assert metric.score(pair[0], None) == pytest.approx(float(patch_artefact_energy(pair[0], 8)))


def test_which_way_each_points(pair):
    for name in ("psnr", "psnr_rgb", "ssim", "ssim_rgb", "ssim_tables", "lpips_nano"):
        metric = load_metric(name)
        worse, same = metric.score(*pair), metric.score(pair[1], pair[1])
        assert (worse > same) == metric.lower_is_better, name
        assert metric.needs_reference
    assert not METRICS["niqe"].needs_reference


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "dists"])
def test_weights_may_be_given(name, assets, pair, monkeypatch):
    monkeypatch.delenv("FLUXSR_WEIGHTS", raising=False)
    metric = load_metric(name, Settings(weights=assets))
    images = [image[..., :64, :64] for image in pair]
    assert metric.score(images[1], images[1]) == pytest.approx(0, abs=1e-5)
    assert metric.score(*images) > 0.01


def test_an_unknown_metric_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ValueError, match=r"'musiq' is none of psnr, .*pip install 'fluxsr\[metrics\]'.*non-commercial"):
        load_metric("musiq")


def test_other_names_go_through_to_pyiqa(monkeypatch, pair):
    class Network:
        metric_mode, lower_better = "NR", True

        def __call__(self, image):
            return image.mean()

    made = []
    fake = SimpleNamespace(
        list_models=lambda: ["brightness", "psnr"],
        create_metric=lambda name, device: made.append(name) or Network(),
    )
    monkeypatch.setitem(sys.modules, "pyiqa", fake)
    metric = load_metric("brightness")
    assert metric.score(pair[0], None) == pytest.approx(float(pair[0].mean()))
    assert metric.lower_is_better and not metric.needs_reference and metric.name == "brightness"
    assert load_metric("pyiqa:psnr").name == "pyiqa:psnr" and made == ["brightness", "psnr"]
    with pytest.raises(ValueError, match="pyiqa has no metric 'psnrr'"):
        load_metric("psnrr")
