"""Draw docs/images/realset65.jpg: the middle of every photo of RealSet65 at x4, by bicubic and by the given models.

python docs/make_contact_sheet.py REALSET65 docs/images/realset65.jpg nano-student RealESRGAN_x4plus.pth

Each group shows one photo, from left to right bicubic and the models in their order. Real photos, so there is no truth.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from fluxsr.evaluation.systems import bicubic, load_model
from fluxsr.images import list_images, read_image

SCALE = 4
SEEN = 64  # LR pixels a side that the models see,
SHOWN = 36  # and the middle of it that is shown: borders of a cut-out are not the photo's
GROUPS, GAP = 5, 6


def middle(image: Tensor, side: int) -> Tensor:
    """Cut the middle square of ``(1, 3, H, W)``, as large as the image allows."""
    height, width = image.shape[-2:]
    side = min(side, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


photos, output, *models = sys.argv[1:]
systems = [bicubic(), *(load_model(model) for model in models)]
paths = list_images(photos)
side = SHOWN * SCALE
width, height = GROUPS * (side * len(systems) + GAP) - GAP, -(-len(paths) // GROUPS) * (side + GAP) - GAP
sheet = Image.new("RGB", (width, height), "white")
for number, path in enumerate(paths):
    lr_image = middle(read_image(path)[None, :3], SEEN)
    size = (SCALE * lr_image.shape[-2], SCALE * lr_image.shape[-1])
    row, group = divmod(number, GROUPS)
    for column, system in enumerate(systems):
        with torch.inference_mode():
            picture = to_pil_image(middle(system.picture(path.name, lr_image, size)[0], side)[0])
        sheet.paste(picture, (group * (side * len(systems) + GAP) + column * side, row * (side + GAP)))
temporary = Path(output).with_suffix(".tmp.jpg")
sheet.save(temporary, quality=85)
temporary.replace(output)
