"""What ships: sizes, loading, and what the student and the ablation claim."""

from __future__ import annotations

import pytest
import torch

from fluxsr.models import load_flux
from fluxsr.models.flux import ASSETS
from fluxsr.training import nano_student


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
    with torch.inference_mode():
        image = nano_student()(torch.rand(1, 3, 20, 33, generator=generator))
    assert image.shape == (1, 3, 80, 132)
    assert 0 <= image.min() and image.max() <= 1


@pytest.mark.slow
def test_the_student_beats_bicubic_on_set14(assets):
    """One step, Real-ESRGAN's degradation with fixed seeds: above in PSNR-Y, below in LPIPS-VGG."""
    from benchmarks.set14 import measure
    from fluxsr.data.images import list_images
    from fluxsr.losses import LPIPSLoss

    photos = [path for path in list_images(assets / "bench" / "Set14_x4") if "LR" not in path.stem]
    assert len(photos) == 14
    means = measure(nano_student(), photos, LPIPSLoss(net="vgg", weights=assets))
    assert means["student"]["psnr_y"] > means["bicubic"]["psnr_y"]
    assert means["student"]["lpips"] < means["bicubic"]["lpips"]


def test_the_student_beats_bicubic_on_a_held_out_photo():
    """The same claim, small: on two of scikit-image's photos, with the shipped perceptual net."""
    from fluxsr.cli.demo import held_out_photo
    from fluxsr.data import RealESRGANDegradation
    from fluxsr.losses import LPIPSLoss
    from fluxsr.training import psnr_y

    student, lpips, degrade = nano_student(), LPIPSLoss(net="nano"), RealESRGANDegradation(scale=4)
    gains, falls = [], []
    with torch.inference_mode():
        for seed, name in enumerate(("astronaut", "coffee", "chelsea", "rocket", "motorcycle")):
            hr_image = held_out_photo(name)[None]
            lr_image = degrade(hr_image, seeds=[seed])
            bicubic, sr_image = student.enlarge(lr_image, hr_image.shape[-2:]), student(lr_image)
            gains.append(float(psnr_y(sr_image, hr_image) - psnr_y(bicubic, hr_image)))
            falls.append(float(lpips(bicubic, hr_image) - lpips(sr_image, hr_image)))
    assert sum(gains) > 0, gains
    assert sum(falls) > 0, falls
