"""The shipped student on a folder of HR photos: PSNR-Y and LPIPS-VGG after one step, beside bicubic.

    FLUXSR_WEIGHTS=WEIGHTS python -m benchmarks.set14 --photos Set14 [--model file.safetensors]

Each photo is cut to a multiple of 16, degraded by Real-ESRGAN's pipeline (x4, seed = its number in the sorted list), and
restored. PSNR on BT.601 luma, nothing cropped.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fluxsr.data import RealESRGANDegradation, read_image
from fluxsr.data.images import list_images
from fluxsr.losses import LPIPSLoss
from fluxsr.losses.spectrum import patch_artefact_energy
from fluxsr.training import OneStepSR, nano_student, psnr_y


def degraded(photos: list[Path], seed: int = 0) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, HR ``(1, 3, H, W)`` and LR image of each photo."""
    degrade = RealESRGANDegradation(scale=4)
    for number, path in enumerate(photos):
        image = read_image(path)
        hr_image = image[None, :, : image.shape[1] // 16 * 16, : image.shape[2] // 16 * 16]
        yield path.stem, hr_image, degrade(hr_image, seeds=[seed + number])


@torch.inference_mode()
def measure(
    module: OneStepSR, photos: list[Path], lpips: torch.nn.Module, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return the mean of each metric, for bicubic and for the module."""
    rows: dict[str, list[tuple[float, ...]]] = {"bicubic": [], "student": []}
    for _, hr_image, lr_image in degraded(photos, seed):
        images = {"bicubic": module.enlarge(lr_image, hr_image.shape[-2:]), "student": module(lr_image)}
        for system, image in images.items():
            artefact = patch_artefact_energy(image, 4).mean()
            rows[system].append((float(psnr_y(image, hr_image)), float(lpips(image, hr_image)), float(artefact)))
    names = ("psnr_y", "lpips", "artefact_db")
    return {
        system: {name: statistics.fmean(column) for name, column in zip(names, zip(*values, strict=True), strict=True)}
        for system, values in rows.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--model", help="a file instead of the shipped student")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--net", default="vgg")
    options = parser.parse_args()
    # Set14's folder holds the LR images too, named so.
    chosen = [path for path in list_images(options.photos) if "LR" not in path.stem]
    student = nano_student(options.model)
    print(json.dumps(measure(student, chosen, LPIPSLoss(net=options.net), options.seed), indent=2))
