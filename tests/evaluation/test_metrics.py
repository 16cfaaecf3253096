import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from fluxsr.evaluation import METRICS, Settings, load_metric
from fluxsr.evaluation.metrics import check_fid, fid, load_metrics, with_parts
from fluxsr.images.resize import imresize, rounded
from fluxsr.losses import LPIPSLoss, patch_artefact_energy
from fluxsr.losses.functional import luma


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


@pytest.mark.parametrize("side", [1, 2, 5, 12])
def test_small_images_have_a_psnr(side):
    black, gray = torch.zeros(1, 3, side, side), torch.full((1, 3, side, side), 0.1)
    assert load_metric("psnr_rgb").score(gray, black) == pytest.approx(20, abs=1e-5)
    assert load_metric("psnr_rgb", Settings(crop=4)).score(*(F.pad(image, (4,) * 4) for image in (gray, black))) < 21


@pytest.mark.parametrize(
    ("name", "settings", "smallest"),
    [
        ("psnr", {"crop": 4}, (9, 9)),
        ("ssim", {}, (6, 6)),
        ("ssim_rgb", {"crop": 2}, (10, 10)),
        ("ssim_tables", {}, (11, 11)),
        ("niqe", {}, (96, 192)),
        ("artefact_db", {"period": 2}, (16, 16)),
    ],
)
def test_smaller_images_are_refused(name, settings, smallest, assets, generator):
    settings, (height, width) = Settings(weights=assets, **settings), smallest
    metric = load_metric(name, settings)
    image = torch.rand(1, 3, height, width, generator=generator)
    assert metric.fits(height, width, settings) and math.isfinite(metric.score(image, 1 - image))
    for smaller in (image[..., 1:, :], image[..., 1:]):
        assert not metric.fits(*smaller.shape[-2:], settings)
        with pytest.raises(ValueError, match=f"{smaller.shape[-2]}x{smaller.shape[-1]} pixels"):
            metric.score(smaller, smaller)


def test_ssim_is_torchmetrics_on_the_luma(pair):
    images = (torch.from_numpy(luma_of(image) / 255)[None, None] for image in pair)
    expected = float(structural_similarity_index_measure(*images, data_range=1.0))
    assert load_metric("ssim").score(*pair) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["ssim", "ssim_rgb", "ssim_tables"])
@pytest.mark.parametrize(("level", "other"), [(255, 254), (250, 252), (128, 127), (3, 0), (255, 255)])
def test_ssim_of_flat_areas_is_the_formulas_and_at_most_1(name, level, other, generator):
    one, two = (torch.full((1, 3, 48, 40), value / 255) for value in (level, other))
    if name == "ssim_tables":
        p, q, c = *((luma(image.double()) * 255).round().mean() for image in (one, two)), (0.01 * 255) ** 2
    else:
        p, q, c = *((luma(i.double()) if name == "ssim" else i.double()).mean() for i in (one, two)), 1e-4
    expected = float((2 * p * q + c) / (p**2 + q**2 + c))
    assert load_metric(name).score(one, two) == pytest.approx(expected, abs=1e-12)
    textured = (one + torch.randint(-2, 1, one.shape, generator=generator) / 255).clamp(0, 1)
    assert load_metric(name).score(textured, textured) == pytest.approx(1, abs=1e-15)
    assert load_metric(name).score(textured, textured) <= 1


def test_the_ntire_score_is_made_of_six_metrics():
    values = {"lpips_alex": 0.25, "dists": 0.15, "clipiqa": 0.7, "maniqa": 0.45, "musiq": 70.0, "niqe": 4.0}
    assert METRICS["ntire"].combine(values) == pytest.approx(0.75 + 0.85 + 0.7 + 0.45 + 0.7 + 0.6)
    assert METRICS["ntire"].combine({**values, "niqe": 12.0}) == pytest.approx(0.75 + 0.85 + 0.7 + 0.45 + 0.7)
    assert with_parts(["ntire"]) == [*values, "ntire"]
    assert with_parts([*reversed(values), "psnr"])[-1] == "ntire" and with_parts(["psnr", "niqe"]) == ["psnr", "niqe"]
    with pytest.raises(ValueError, match=r"evaluate\(\)"):
        load_metric("ntire")


def test_a_picture_is_consistent_if_it_can_have_become_the_lr_image(photo):
    lr_image = rounded(imresize(photo, (64, 64)))
    consistent, spread = (load_metric(name) for name in ("consistency", "consistency_spread"))
    assert consistent.needs_lr and not consistent.needs_reference
    assert consistent.score(photo, lr_image) == math.inf and spread.score(photo, lr_image) == 0
    enlarged = rounded(imresize(lr_image, (256, 256)))
    other = rounded(photo.roll(9, dims=-1))
    assert consistent.score(enlarged, lr_image) > consistent.score(other, lr_image) + 10


def test_the_spread_of_a_random_degradation_is_that_over_its_draws(photo):
    def degrade(image, number):
        generator = torch.Generator().manual_seed(number)
        noise = torch.randn(1, 3, 64, 64, generator=generator) * 0.02 * (1 + number % 2)
        return imresize(image, (64, 64)) + noise

    lr_image = rounded(imresize(photo, (64, 64)))
    settings = Settings(degrade=degrade)
    value = load_metric("consistency", settings).score(photo, lr_image)
    spread = load_metric("consistency_spread", settings).score(photo, lr_image)
    assert 28 < value < 34 and 2 < spread < 5  # 6 dB between the two kinds of draws


OWN = """
import torch

def brightness(sr_image):
    return sr_image.mean()

def farthest(sr_image, hr_image, power=1.0):
    return (sr_image - hr_image).abs().amax() ** power

farthest.lower_is_better = True

class Network(torch.nn.Module):
    lower_is_better = True
    def forward(self, sr_image, hr_image):
        return (sr_image - hr_image).square().mean()

def map_of(sr_image):
    return sr_image

number = 3
def nothing():
    return 0

def broken(sr_image):
    raise RuntimeError("it broke")

class Wanting:
    def __init__(self, what):
        pass
    def __call__(self, sr_image):
        return 0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_metrics_21.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_metrics_21", None)
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


@pytest.mark.parametrize(
    ("function", "lower", "reference"),
    [("brightness", False, False), ("farthest", True, True), ("Network", True, True)],
)
def test_a_metric_of_ones_own_is_named_by_its_place(own, pair, function, lower, reference):
    metric = load_metric(f"mine=own_metrics_21:{function}")
    expected = {
        "brightness": pair[0].mean(),
        "farthest": (pair[0] - pair[1]).abs().amax(),
        "Network": (pair[0] - pair[1]).square().mean(),
    }
    assert metric.score(*pair) == pytest.approx(float(expected[function]))
    assert (metric.name, metric.lower_is_better, metric.needs_reference) == ("mine", lower, reference)
    assert metric.source.startswith(f"own_metrics_21:{function}, ")


@pytest.mark.parametrize(
    ("specs", "named"),
    [
        (["mine=own_metrics_21"], "mine=own_metrics_21"),
        (["mine=nowhere_21:f"], "nowhere_21"),
        (["mine=own_metrics_21:absent"], "absent"),
        (["mine=own_metrics_21:number"], "int"),
        (["mine=own_metrics_21:nothing"], "takes 0"),
        (["psnr=own_metrics_21:brightness"], "psnr is a metric"),
        (["mine=own_metrics_21:Wanting"], "Wanting"),
        (["mine=own_metrics_21:brightness", "mine=own_metrics_21:farthest"], "mine is a metric already"),
    ],
)
def test_a_metric_of_ones_own_that_is_none_is_told(own, specs, named):
    with pytest.raises(ValueError, match=named):
        load_metrics(specs)


@pytest.mark.parametrize(
    ("function", "named"), [("broken", r"own_metrics_21.py:\d+ .*RuntimeError"), ("map_of", "Tensor")]
)
def test_a_metric_of_ones_own_that_fails_or_gives_no_number_is_told(own, pair, function, named):
    with pytest.raises(ValueError, match=named):
        load_metric(f"mine=own_metrics_21:{function}").score(*pair)


def test_ssim_of_the_tables_is_scikit_images_on_the_rounded_luma(pair):
    # Of a photo and its noisy copy no structures oppose each other, so the clamp does nothing here.
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    smooth = [torch.nn.functional.avg_pool2d(image, 3, 1) for image in pair]
    smooth[0] = smooth[1] * 0.95
    expected = structural_similarity(*(luma_of(image).round() for image in smooth), **options)
    assert load_metric("ssim_tables").score(*smooth) == pytest.approx(expected, abs=1e-6)


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


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "dists"])
def test_weights_may_be_given(name, assets, pair, monkeypatch):
    monkeypatch.delenv("FLUXSR_WEIGHTS", raising=False)
    metric = load_metric(name, Settings(weights=assets))
    images = [image[..., :64, :64] for image in pair]
    assert metric.score(images[1], images[1]) == pytest.approx(0, abs=1e-5)
    assert metric.score(*images) > 0.01


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
    with pytest.raises(ValueError, match="'psnrr'"):
        load_metric("psnrr")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    for ask in (lambda: load_metric("musiq"), lambda: check_fid(60)):
        with pytest.raises(ValueError, match=r"fluxsr\[metrics\]"):
            ask()


def test_fid_asks_pyiqa_about_exactly_these_files(tmp_path, monkeypatch):
    for name in range(60):
        (tmp_path / f"{name}.png").touch()
    seen = []

    def metric(results, references, verbose):
        seen.extend(sorted(path.resolve() for path in Path(folder).iterdir()) for folder in (results, references))
        return 12.5

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=lambda name, device: metric))
    files = sorted(tmp_path.iterdir())
    assert fid(files[:50], files[5:], "cpu") == 12.5
    assert seen == [sorted(files[:50]), sorted(files[5:])]
    with pytest.raises(ValueError, match="49 images"):
        check_fid(49)
