"""What ships: sizes, loading, and what the student and the ablation claim."""

from __future__ import annotations

import pytest
import torch

from fluxsr.inference import Upscaler
from fluxsr.models import load_flux
from fluxsr.models.loading import ASSETS


def test_all_weights_fit_into_sixteen_megabytes():
    files = list(ASSETS.glob("*.safetensors"))
    assert {"nano_teacher.safetensors", "nano_student.safetensors", "perceptual_nano.safetensors"} <= {
        f.name for f in files
    }
    assert sum(file.stat().st_size for file in files) <= 16e6


@pytest.mark.parametrize("name", ["nano", "nano-student"])
def test_shipped_backbones_load(name, generator):
    backbone = load_flux(name, trainable="none")
    assert sum(parameter.numel() for parameter in backbone.parameters()) < 8_000_000
    velocity = backbone(torch.randn(1, 12, 16, 16, generator=generator), torch.full((1,), 0.25))
    assert velocity.isfinite().all()


def test_the_student_upscales_four_times(generator):
    image = Upscaler.from_pretrained()(torch.rand(1, 3, 20, 33, generator=generator))
    assert image.shape == (1, 3, 80, 132)
    assert 0 <= image.min() and image.max() <= 1


def beats_bicubic(images, net: torch.nn.Module) -> None:
    """Above bicubic in PSNR-Y and below it in LPIPS, on average, in one step."""
    from benchmarks.restoration import bicubic, measure

    upscaler = Upscaler.from_pretrained()
    found = measure({"bicubic": bicubic, "student": lambda image: upscaler(image, scale=4)}, images, {"net": net})
    gain = found["student"]["psnr_y"] - found["bicubic"]["psnr_y"]
    fall = found["bicubic"]["lpips_net"] - found["student"]["lpips_net"]
    assert gain.mean() > 0 and fall.mean() > 0, (gain, fall)


@pytest.mark.slow
def test_the_student_beats_bicubic_on_set14(assets):
    from benchmarks.restoration import degraded
    from fluxsr.data.images import list_images
    from fluxsr.losses import LPIPSLoss

    photos = [path for path in list_images(assets / "bench" / "Set14_x4") if "LR" not in path.stem]
    assert len(photos) == 14
    beats_bicubic(list(degraded(photos)), LPIPSLoss(net="vgg", weights=assets))


def test_the_student_beats_bicubic_on_held_out_photos():
    """The same claim, small: on five of scikit-image's photos, with the shipped perceptual net."""
    from fluxsr.cli.demo import PHOTOS, held_out_photo
    from fluxsr.data import RealESRGANDegradation
    from fluxsr.losses import LPIPSLoss

    degrade = RealESRGANDegradation(scale=4)
    photos = [held_out_photo(name)[None] for name in PHOTOS]
    images = [(photo, degrade(photo, seeds=[seed])) for seed, photo in enumerate(photos)]
    beats_bicubic(images, LPIPSLoss(net="nano"))
