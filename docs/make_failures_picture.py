"""Draw docs/images/failures.png: what the shipped student cannot do, on a face, on text and on a clean LR.

python docs/make_failures_picture.py        # needs the extra demo, for the photos of scikit-image
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data

from fluxsr.data import BicubicDegradation, RealESRGANDegradation
from fluxsr.inference import Upscaler
from fluxsr.training import OneStepSR

SIDE, SCALE = 160, 4
HEAVY = RealESRGANDegradation(SCALE)
TEXT = np.repeat(data.page()[..., None], 3, axis=2)
CASES = (
    ("a face", data.astronaut(), (20, 150), HEAVY, 3),
    ("text", TEXT, (16, 16), HEAVY, 5),
    ("fur, clean LR", data.chelsea(), (90, 120), BicubicDegradation(SCALE), 0),
)

student = Upscaler.from_pretrained(device="cpu")
figure, axes = plt.subplots(len(CASES), 4, figsize=(10, 7.9), layout="constrained")
for row, (title, pixels, (top, left), degrade, seed) in zip(axes, CASES, strict=True):
    hr_image = torch.from_numpy(pixels[top : top + SIDE, left : left + SIDE, :3].copy()).permute(2, 0, 1)[None] / 255
    lr_image = degrade(hr_image, seeds=[seed])
    images = {
        "LR": lr_image,
        "bicubic": OneStepSR.enlarge(lr_image, (SIDE, SIDE)),
        "nano, one step": student(lr_image, scale=SCALE),
        "HR": hr_image,
    }
    for axis, (name, image) in zip(row, images.items(), strict=True):
        axis.imshow(image[0].clamp(0, 1).permute(1, 2, 0), interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(f"{title}: {name}" if name == "LR" else name, fontsize=8, loc="left")
figure.savefig(Path(__file__).parent / "images" / "failures.png", dpi=100)
