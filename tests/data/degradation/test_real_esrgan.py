import inspect
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.stats import poisson

from fluxsr.data import BicubicDegradation, RealESRGANDegradation, SecondStageRanges, StageRanges, mild_degradation
from fluxsr.data.degradation.kernels import gaussian_kernel
from fluxsr.data.degradation.ranges import KERNEL_KINDS, Dice
from fluxsr.data.degradation.steps import add_gaussian_noise, add_poisson_noise, blur
from fluxsr.demo import held_out_photo
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

# As published for RealESRGAN_x4plus.
FIRST = {
    "kernel_sizes": (7, 21),
    "kernel_probs": (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
    "sinc_prob": 0.1,
    "blur_sigma": (0.2, 3.0),
    "betag": (0.5, 4.0),
    "betap": (1.0, 2.0),
    "resize_prob": (0.2, 0.7, 0.1),
    "resize_range": (0.15, 1.5),
    "gaussian_noise_prob": 0.5,
    "noise_range": (1, 30),
    "poisson_scale_range": (0.05, 3.0),
    "gray_noise_prob": 0.4,
    "jpeg_range": (30, 95),
}
SECOND = FIRST | {
    "blur_sigma": (0.2, 1.5),
    "resize_prob": (0.3, 0.4, 0.3),
    "resize_range": (0.3, 1.2),
    "noise_range": (1, 25),
    "poisson_scale_range": (0.05, 2.5),
}
PUBLISHED = {
    "scale": None,
    "first": StageRanges(**FIRST),
    "second": SecondStageRanges(**SECOND),
    "second_blur_prob": 0.8,
    "final_sinc_prob": 0.8,
    "final_kernel_sizes": (7, 21),
    "sinc_cutoff": (math.pi / 3, math.pi),
    "sinc_cutoff_large": (math.pi / 5, math.pi),
    "jpeg_last_prob": 0.5,
}


def test_defaults_are_the_published_ranges() -> None:
    parameters = inspect.signature(RealESRGANDegradation).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == PUBLISHED


MILD = mild_degradation()
# What seeds 0, 1 and 2 drew when each range was an argument of its own.
# fmt: off
DRAWN = {
    "default": [
        [
            21, 0.014282, 1.175553812, "bilinear", True, 14.133196618, True, 53,
            13, 0.498251, 0.84941173, "area", False, 0.318851388, False, 44,
            15, "bicubic", True,
        ],
        [
            7, 0.169806, 0.243027276, "bilinear", False, 1.760339956, False, 63,
            17, 0.869464, 0.437736607, "bilinear", False, 2.315937044, False, 88,
            0, "bicubic", True,
        ],
        [
            21, 0.513267, 0.926269089, "bilinear", True, 8.741472472, False, 60,
            17, 0.056741, 1.151586836, "area", False, 1.781560996, False, 75,
            9, "area", True,
        ],
    ],
    "mild": [
        [
            21, 0.031479, 0.675553812, "bilinear", True, 2.771926208, True, 87,
            0, 0, 1.0, "bilinear", True, 2.693648885, False, 84,
            0, "area", False,
        ],
        [
            7, 0.369788, 1.0, "bilinear", False, 0.23611274, False, 90,
            0, 0, 1.0, "area", True, 2.596933881, True, 90,
            0, "bicubic", False,
        ],
        [
            21, 0.513267, 1.0, "bilinear", True, 1.674989227, False, 89,
            17, 0.056741, 0.903173671, "area", False, 0.214960281, False, 94,
            0, "area", False,
        ],
    ],
}
# fmt: on


@pytest.mark.parametrize("name", DRAWN)
def test_seeds_draw_what_they_always_drew(name) -> None:
    degradation = {"default": RealESRGANDegradation(), "mild": MILD}[name]
    for seed, expected in enumerate(DRAWN[name]):
        recipe = degradation.draw(torch.Generator().manual_seed(seed))
        drawn: list[object] = []
        for stage in (recipe.first, recipe.second):
            kernel = stage.kernel
            drawn += (
                [0, 0] if kernel is None else [kernel.shape[0], pytest.approx(float(kernel.square().sum()), abs=1e-5)]
            )
            drawn += [pytest.approx(stage.factor, abs=1e-8), stage.mode, stage.gaussian]
            drawn += [pytest.approx(stage.strength, abs=1e-8), stage.gray, stage.jpeg_quality]
        drawn += [
            0 if recipe.final_kernel is None else recipe.final_kernel.shape[0],
            recipe.final_mode,
            recipe.jpeg_last,
        ]
        assert drawn == expected


@pytest.mark.parametrize("scale", [2, 4])
def test_a_batch_equals_its_images_alone(photo_like, scale: int) -> None:
    degradation = RealESRGANDegradation(scale)
    images = torch.stack([photo_like(64, 80, seed=seed) for seed in range(4)])
    seeds = [3, 1_000_003, 2**62 + 1, 7]
    together = degradation(images, seeds=seeds)
    assert together.shape == (4, 3, 64 // scale, 80 // scale)
    for image, seed, row in zip(images, seeds, together, strict=True):
        assert torch.equal(degradation(image, seeds=seed), row)


def test_results_are_8_bit_images_and_depend_on_the_seed_alone(photo_like) -> None:
    degradation = RealESRGANDegradation()
    image = photo_like(64, 64)
    copy = image.clone()
    state = torch.random.get_rng_state()
    results = [degradation(image, seeds=seed) for seed in range(60)]
    assert torch.equal(image, copy)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(results[5], degradation(image, seeds=5))
    for result in results:
        assert result.dtype == torch.float32
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
        torch.testing.assert_close((result * 255).round() / 255, result, atol=1e-6, rtol=0)
    assert len({result.numpy().tobytes() for result in results}) == 60
    # Degraded, but still the same picture.
    plain = BicubicDegradation()(image)
    errors = torch.stack([(result - plain).abs().mean() for result in results])
    assert 0.01 < float(errors.median()) < 0.15


def test_the_number_of_threads_changes_nothing(photo_like) -> None:
    degradation = RealESRGANDegradation()
    images = [photo_like(128, 128, seed=seed) for seed in range(8)]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append([degradation(image, seeds=5) for image in images])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_tiny_images_are_degraded(photo_like) -> None:
    degradation = RealESRGANDegradation()
    for seed in range(30):
        assert degradation(photo_like(8, 4, seed=seed), seeds=seed).shape == (3, 2, 1)


def test_draws_follow_the_ranges() -> None:
    first = StageRanges(kernel_sizes=(9, 11), jpeg_range=(40, 42), resize_prob=(1.0, 0.0, 0.0))
    degradation = RealESRGANDegradation(first=first)
    recipes = [degradation.draw(torch.Generator().manual_seed(seed)) for seed in range(600)]
    assert {recipe.first.kernel.shape[0] for recipe in recipes} == {9, 11}
    assert {recipe.first.jpeg_quality for recipe in recipes} == {40, 41, 42}
    assert all(1.0 <= recipe.first.factor <= 1.5 for recipe in recipes)
    assert all(0.3 <= recipe.second.factor <= 1.2 for recipe in recipes)
    assert {recipe.final_mode for recipe in recipes} == {"area", "bilinear", "bicubic"}
    blurred = sum(recipe.second.kernel is not None for recipe in recipes) / 600
    filtered = sum(recipe.final_kernel is not None for recipe in recipes) / 600
    assert blurred == pytest.approx(0.8, abs=0.06)
    assert filtered == pytest.approx(0.8, abs=0.06)
    for name, limit in (("first", 30), ("second", 25)):
        drawn = [getattr(recipe, name) for recipe in recipes]
        assert sum(entry.gaussian for entry in drawn) / 600 == pytest.approx(0.5, abs=0.07)
        assert all(1 <= entry.strength <= limit for entry in drawn if entry.gaussian)
        assert all(0.05 <= entry.strength <= 3 for entry in drawn if not entry.gaussian)


def test_choices_have_their_probabilities() -> None:
    probabilities = FIRST["kernel_probs"]
    counts = np.zeros(len(KERNEL_KINDS))
    for seed in range(400):
        dice = Dice(torch.Generator().manual_seed(seed))
        for _ in range(20):
            counts[dice.choice(probabilities)] += 1
    np.testing.assert_allclose(counts / counts.sum(), probabilities, atol=0.015)


def test_blur_equals_the_direct_sum(photo_like) -> None:
    kernel = gaussian_kernel(13, (2.0, 0.7), 0.4)
    for size in [(40, 56), (9, 30)]:
        image = photo_like(*size)
        padded = torch.nn.functional.pad(image[None], (6, 6, 6, 6), mode="reflect")
        expected = torch.nn.functional.conv2d(padded.transpose(0, 1), kernel[None, None])[:, 0]
        torch.testing.assert_close(blur(image, kernel), expected, atol=2e-6, rtol=0)


def test_gaussian_noise_has_its_strength() -> None:
    image = torch.full((3, 128, 128), 0.5)
    generator = torch.Generator().manual_seed(1)
    color = add_gaussian_noise(image, 20.0, False, generator) - image
    gray = add_gaussian_noise(image, 20.0, True, generator) - image
    assert float(color.std()) * 255 == pytest.approx(20.0, rel=0.02)
    assert float(gray.std()) * 255 == pytest.approx(20.0, rel=0.02)
    assert torch.equal(gray[0], gray[2])
    assert not torch.equal(color[0], color[2])


@pytest.mark.parametrize("level", [3, 60, 200])
def test_poisson_noise_follows_its_law(level: int) -> None:
    # All 256 levels occur, so a full-scale pixel counts 256 photons; only the wanted level is looked at.
    ramp = torch.arange(256.0).repeat_interleave(4).reshape(1, 1, 1024) / 255
    flat = torch.full((1, 255, 1024), level / 255)
    image = torch.cat([ramp, flat], dim=1).expand(3, -1, -1)
    generator = torch.Generator().manual_seed(level)
    noisy = add_poisson_noise(image, 0.25, False, generator)[:, 1:].flatten()
    counts = ((noisy - level / 255) / 0.25 + level / 255) * 256
    law = poisson(level / 255 * 256)
    torch.testing.assert_close(counts, counts.round(), atol=0.02, rtol=0)
    found = np.bincount(counts.round().long().numpy(), minlength=400)[:400] / counts.numel()
    np.testing.assert_allclose(found, law.pmf(np.arange(400)), atol=0.002)
    assert float(counts.mean()) == pytest.approx(law.mean(), rel=0.005)


def test_gray_poisson_noise_is_the_same_in_all_channels(photo_like) -> None:
    image = photo_like(32, 32) * 0.5 + 0.25
    noise = add_poisson_noise(image, 0.1, True, torch.Generator().manual_seed(0)) - image
    torch.testing.assert_close(noise[0], noise[1])
    assert float(noise.abs().mean()) > 0
    black = torch.zeros(3, 8, 8)
    assert torch.equal(add_poisson_noise(black, 3.0, False, torch.Generator().manual_seed(0)), black)


def test_bicubic_equals_pillow_closely(photo_like) -> None:
    image = photo_like(64, 96)
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    difference = BicubicDegradation(4)(image, seeds=9) * 255 - torch.from_numpy(expected.astype(np.float32))
    # Pillow rounds, and clips the overshoot, between its two passes.
    assert float(difference.abs().max()) <= 2.01
    assert float(difference.abs().mean()) < 0.2
    batch = BicubicDegradation(2)(torch.stack([image, image.flip(-1)]), seeds=[0, 1])
    assert batch.shape == (2, 3, 32, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_sizes": (7, 20)}, "kernel_sizes must be odd"),
        ({"kernel_sizes": (21, 7)}, "kernel_sizes must be .low, high. with low <= high"),
        ({"kernel_probs": (0.5, 0.5)}, "kernel_probs must be 6 probabilities"),
        ({"resize_prob": (0.5, 0.4, 0.3)}, "resize_prob must be 3 probabilities .* sum to 1"),
        ({"sinc_prob": 1.5}, "sinc_prob is a probability .* got 1.5"),
        ({"blur_sigma": (0.0, 3.0)}, "blur_sigma must be above 0"),
        ({"betag": (2.0, 4.0)}, "betag must contain 1"),
        ({"resize_range": (0.2, 0.9)}, "resize_range must contain 1"),
        ({"noise_range": (-1.0, 30.0)}, "noise_range must be at least 0"),
        ({"poisson_scale_range": (0.1, math.nan)}, "poisson_scale_range must be"),
        ({"jpeg_range": (30, 101)}, "jpeg_range must be at least 1 and at most 100"),
    ],
)
@pytest.mark.parametrize("ranges", [StageRanges, SecondStageRanges])
def test_bad_ranges_are_named(ranges, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranges(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "scale must be a whole number of at least 1, got 0"),
        ({"final_sinc_prob": -0.1}, "final_sinc_prob is a probability"),
        ({"sinc_cutoff": (1.0, 4.0)}, "sinc_cutoff must be above 0 and at most 3.14"),
        ({"second": StageRanges()}, "second must be SecondStageRanges"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RealESRGANDegradation(**arguments)


@pytest.mark.parametrize("degradation", [RealESRGANDegradation(), BicubicDegradation()])
@pytest.mark.parametrize(
    ("image", "seeds", "named"),
    [
        (torch.rand(3, 30, 32), 0, "30x32.*scale=4"),
        (torch.rand(1, 32, 32), 0, r"got \(1, 32, 32\)"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), 0, "uint8"),
        (torch.full((3, 32, 32), 255.0), 0, "255"),
        (torch.full((3, 32, 32), math.nan), 0, "nan"),
    ],
)
def test_bad_images(degradation, image, seeds, named) -> None:
    with pytest.raises(ValueError, match=named):
        degradation(image, seeds=seeds)


@pytest.mark.parametrize(("count", "seeds"), [(3, [0, 1]), (2, 0)])
def test_wrong_number_of_seeds(count, seeds) -> None:
    with pytest.raises(ValueError, match=f"for {count} images"):
        RealESRGANDegradation()(torch.rand(count, 3, 32, 32), seeds=seeds)


@pytest.mark.gpu
def test_a_gpu_gives_what_a_cpu_gives(photo_like) -> None:
    degradation = RealESRGANDegradation()
    images = torch.stack([photo_like(128, 128, seed=seed) for seed in range(16)])
    on_cpu = degradation(images, seeds=range(16))
    on_gpu = degradation(images.cuda(), seeds=range(16)).cpu()
    # Where rounding to 8 bit or a JPEG coefficient tips over, single pixels differ.
    assert float((on_cpu - on_gpu).abs().mean()) < 0.002


def error(degradation: RealESRGANDegradation, image: torch.Tensor, seeds: range) -> float:
    """Mean squared error of what is left of an image, at the LR image's size."""
    batch = image.expand(len(seeds), -1, -1, -1)
    small = torch.nn.functional.interpolate(batch, scale_factor=1 / degradation.scale, mode="bicubic", antialias=True)
    return float((degradation(batch, seeds=list(seeds)) - small).square().mean())


def test_it_leaves_most_of_a_photo():
    image = held_out_photo("chelsea")[:, :128, :128]
    assert error(mild_degradation(), image, range(8)) < error(RealESRGANDegradation(), image, range(8)) / 3


def test_nanos_configurations_take_it_by_name():
    config = yaml.safe_load((ROOT / "examples" / "configs" / "student_nano.yaml").read_text())
    parts = config["data"]["degradation"]["init_args"]["degradations"]
    assert {"class_path": "fluxsr.data.mild_degradation"} in parts
