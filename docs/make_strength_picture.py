"""Draw docs/images/strength.png: one photo restored at several strengths by the shipped student.

python docs/make_strength_picture.py        # needs the extra demo, for the photos of scikit-image
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage import data

from fluxsr.data import RealESRGANDegradation
from fluxsr.inference import Upscaler

SIDE, SCALE = 192, 4
STRENGTHS = (0, 0.5, 1, 1.5, 2)

student = Upscaler.from_pretrained(device="cpu")
pixels = data.coffee()[120 : 120 + SIDE, 240 : 240 + SIDE]
hr_image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
lr_image = RealESRGANDegradation(SCALE)(hr_image, seeds=[1])
figure, axes = plt.subplots(1, len(STRENGTHS), figsize=(10, 2.3), layout="constrained")
for axis, strength in zip(axes, STRENGTHS, strict=True):
    restored = student(lr_image, scale=SCALE, strength=strength)
    axis.imshow(restored[0].clamp(0, 1).permute(1, 2, 0), interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(f"strength {strength:g}", fontsize=8, loc="left")
figure.savefig(Path(__file__).parent / "images" / "strength.png", dpi=100)
