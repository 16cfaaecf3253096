"""Models on a folder of HR photos under Real-ESRGAN's degradation: PSNR-Y, LPIPS and the artefact meter, beside bicubic.

    FLUXSR_WEIGHTS=WEIGHTS python -m benchmarks.restoration --photos Set14 [--model student.safetensors ...] [--steps 1 4]

Each photo is cut to a multiple of 16 (or to its middle square, ``--crop``), degraded (x4, seed = its number in the sorted
list) and restored without a colour fix. PSNR on BT.601 luma, nothing cropped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fluxsr.data import RealESRGANDegradation, read_image
from fluxsr.data.images import list_images
from fluxsr.evaluation.statistics import bootstrap_interval
from fluxsr.inference import Upscaler
from fluxsr.losses import LPIPSLoss
from fluxsr.losses.spectrum import patch_artefact_energy
from fluxsr.training import OneStepSR, psnr_y

SCALE = 4


def degraded(
    photos: Sequence[Path], seeds: Sequence[int] = (0,), crop: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the HR image ``(1, 3, H, W)`` and the LR image of each photo, for each seed."""
    degrade = RealESRGANDegradation(scale=SCALE)
    for seed in seeds:
        for number, path in enumerate(photos):
            image = read_image(path)[None]
            height, width = (side // 16 * 16 if crop is None else min(crop, side) for side in image.shape[-2:])
            top, left = (0, 0) if crop is None else ((image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2)
            hr_image = image[..., top : top + height, left : left + width]
            yield hr_image, degrade(hr_image, seeds=[seed + number])


def bicubic(lr_image: Tensor) -> Tensor:
    """Where restoration starts, and its baseline."""
    return OneStepSR.enlarge(lr_image, (SCALE * lr_image.shape[-2], SCALE * lr_image.shape[-1]))


@torch.inference_mode()
def measure(
    systems: dict[str, Callable[[Tensor], Tensor]], images: Sequence[tuple[Tensor, Tensor]], nets: dict[str, nn.Module]
) -> dict[str, dict[str, Tensor]]:
    """Return each system's values, ``(images,)`` per metric."""
    results: dict[str, dict[str, Tensor]] = {}
    for name, restore in systems.items():
        rows = []
        for hr_image, lr_image in images:
            image = restore(lr_image)
            scores = {"psnr_y": psnr_y(image, hr_image), "artefact_db": patch_artefact_energy(image, 4).mean()}
            rows.append(scores | {f"lpips_{net}": loss(image, hr_image) for net, loss in nets.items()})
        results[name] = {metric: torch.stack([row[metric] for row in rows]) for metric in rows[0]}
    return results


def half_interval(values: Tensor) -> float:
    """Return half the width of the bootstrap's 95 % interval of a mean."""
    low, high = bootstrap_interval(values.tolist())
    return (high - low) / 2


def summary(results: dict[str, dict[str, Tensor]], against: str) -> dict[str, dict[str, list[float]]]:
    """Return mean, mean difference from the system ``against``, and that difference's half interval, image by image."""
    first = results[against]
    return {
        name: {
            metric: [
                round(x, 4)
                for x in (float(v.mean()), float((v - first[metric]).mean()), half_interval(v - first[metric]))
            ]
            for metric, v in values.items()
        }
        for name, values in results.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--model", nargs="+", default=["nano-student"], help="what Upscaler.from_pretrained takes")
    parser.add_argument("--steps", nargs="+", type=int, default=[1])
    parser.add_argument("--crop", type=int, help="middle square of so many pixels instead of the whole photo")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--nets", nargs="*", default=["vgg"])
    parser.add_argument(
        "--against", default="bicubic", help="the system that the others are compared with, for example 'a, 1'"
    )
    options = parser.parse_args()
    # Set5's and Set14's folders hold the LR images too, named so.
    chosen = [path for path in list_images(options.photos) if "LR" not in path.stem]
    table: dict[str, Callable[[Tensor], Tensor]] = {"bicubic": bicubic}
    for model in options.model:
        upscaler = Upscaler.from_pretrained(model, color_fix="none")
        for steps in options.steps:
            table[f"{Path(model).stem}, {steps}"] = lambda image, u=upscaler, n=steps: u(image, scale=SCALE, steps=n)
    perceptual = {net: LPIPSLoss(net) for net in options.nets}
    found = measure(table, list(degraded(chosen, options.seeds, options.crop)), perceptual)
    print(json.dumps(summary(found, options.against), indent=2))
