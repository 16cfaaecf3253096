"""Write docs/gallery.md with its pictures, and the picture at the top of README, from the shipped student.

python docs/make_gallery.py        # needs the extra demo (scikit-image's photos), and VGG's weights for LPIPS

Each photo is damaged as photos are in daily use (shrunk and compressed, grainy, soft), enlarged again by bicubic
interpolation (before) and by one step of the student (after).
"""

import io
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data, io as photos
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from fluxsr.data.degradation.kernels import gaussian_kernel
from fluxsr.data.degradation.steps import add_gaussian_noise, blur
from fluxsr.inference import Upscaler
from fluxsr.losses import LPIPSLoss
from fluxsr.training import OneStepSR, psnr_y

DOCS = Path(__file__).parent
SCALE = 4
WIDTH, HEIGHT = 480, 320
INK = "#222222"


class Damage(NamedTuple):
    """What happened to a photo after it was shrunk to a quarter of each side."""

    words: str
    sigma: float = 0.0  # of the blur, in pixels of the photo
    noise: float = 0.0  # deviation, in units of [0, 1]
    quality: int = 100  # of the JPEG file


class Case(NamedTuple):
    """A photo of scikit-image, the corner of its crop, the damage, and where the detail lies in it."""

    photo: str
    corner: tuple[int, int]
    damage: Damage
    caption: str
    credit: str
    detail: tuple[int, int] = (0, 0)


SHRUNK = Damage("Shrunk to a quarter, JPEG 90", quality=90)
MESSENGER = Damage("Shrunk to a quarter, JPEG 50", quality=50)
SOFT = Damage("Out of focus, shrunk to a quarter, JPEG 80", sigma=3.0, quality=80)
GRAINY = Damage("Shrunk to a quarter, grain, JPEG 75", noise=0.04, quality=75)
BAD = Damage("Out of focus, shrunk to a quarter, grain, JPEG 40", sigma=2.5, noise=0.03, quality=40)

HERO = "coffee"
CASES = (
    Case("coffee", (40, 100), MESSENGER, "A cup, as a messaging app sends it", "CC0", (36, 284)),
    Case("chelsea", (0, 0), GRAINY, "Fur in low light", "CC0"),
    Case("astronaut", (0, 30), MESSENGER, "A face, as a messaging app sends it", "NASA, public domain"),
    Case("rocket", (60, 120), GRAINY, "A launch at dusk", "SpaceX, public domain"),
    Case("gravel", (0, 0), SOFT, "Gravel, out of focus", "CC0"),
    Case("hubble_deep_field", (300, 300), GRAINY, "Galaxies", "NASA, public domain"),
    Case("camera", (60, 30), MESSENGER, "An old photo in gray", "CC0"),
    Case("brick", (0, 0), SOFT, "Bricks, out of focus", "CC0"),
    Case("astronaut", (180, 30), SHRUNK, "Failure: small letters on a suit", "NASA, public domain"),
    Case("text", (0, 0), MESSENGER, "Failure: handwriting is not read", "public domain"),
    Case("grass", (0, 0), BAD, "Failure: grass becomes another texture", "CC0"),
    Case("coins", (0, 0), SHRUNK, "Failure: reliefs are smoothed", "no known copyright"),
)


def read(case: Case) -> Tensor:
    """Return the photo's crop ``(1, 3, H, W)`` in [0, 1], at most HEIGHT x WIDTH, in multiples of 16."""
    folder = Path(data.__file__).parent
    pixels = photos.imread(next(path for path in folder.glob(f"{case.photo}.*") if path.suffix in (".png", ".jpg")))
    image = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=2))[..., :3]
    top, left = case.corner
    image = image[top : top + HEIGHT, left : left + WIDTH].permute(2, 0, 1)[None].float() / 255
    return image[..., : image.shape[-2] // 16 * 16, : image.shape[-1] // 16 * 16]


def damaged(hr_image: Tensor, damage: Damage) -> Tensor:
    """Return the LR image ``(1, 3, h, w)`` as its JPEG file has it."""
    image = hr_image
    if damage.sigma:
        image = blur(image[0], gaussian_kernel(21, (damage.sigma, damage.sigma)))[None]
    image = F.interpolate(image, scale_factor=1 / SCALE, mode="area")
    if damage.noise:
        image = add_gaussian_noise(image[0], damage.noise, False, torch.Generator().manual_seed(0))[None]
    file = io.BytesIO()
    to_pil_image(image[0].clamp(0, 1)).save(file, "JPEG", quality=damage.quality)
    return pil_to_tensor(Image.open(file))[None].float() / 255


def save(image: Image.Image, path: Path) -> None:
    """Write a WebP file, whole or not at all."""
    temporary = path.with_suffix(".tmp.webp")
    image.save(temporary, quality=82, method=6)
    temporary.replace(path)


def hero(case: Case, before: Image.Image, after: Image.Image) -> None:
    """Draw README's picture: before and after with their names, and a detail of each at three times its size."""
    size, gap, title = 320, 8, 34
    side = (size - gap) // 2
    seen = 52
    sheet = Image.new("RGB", (2 * size + 2 * gap + side, size + title), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    top, left = case.detail
    small = f"{before.width // SCALE} x {before.height // SCALE}"
    names = (f"before: {small} pixels, JPEG 50", "after: one step of the shipped model")
    for number, (picture, name) in enumerate(zip((before, after), names, strict=True)):
        start = max(0, min(picture.width - size, left + seen // 2 - size // 2))
        shown = picture.crop((start, 0, start + size, min(size, picture.height)))
        frame = ImageDraw.Draw(shown)
        frame.rectangle((left - start, top, left - start + seen, top + seen), outline="#ffd400", width=3)
        sheet.paste(shown, (number * (size + gap), title))
        pen.text((number * (size + gap) + 2, 8), name, fill=INK, font=font)
        detail = picture.crop((left, top, left + seen, top + seen)).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(detail, (2 * (size + gap), title + number * (side + gap)))
    pen.text((2 * (size + gap) + 2, 8), "detail x3, both", fill=INK, font=font)
    save(sheet, DOCS / "images" / "before_after.webp")


SLIDER = """\
<figure class="slider" style="--cut: 50%">
<div class="pair">
<img src="images/gallery/{name}_after.webp" alt="{caption}: after" loading="lazy" width="{width}" height="{height}">
<img class="before" src="images/gallery/{name}_before.webp" alt="{caption}: before" loading="lazy">
</div>
<input type="range" min="0" max="100" value="50" aria-label="{caption}: how much of the picture is before"
 oninput="this.parentNode.style.setProperty('--cut', this.value + '%')">
<figcaption><b>{caption}.</b> {damage};
PSNR-Y {bicubic[0]:.1f} → {restored[0]:.1f} dB, LPIPS {bicubic[1]:.2f} → {restored[1]:.2f}.
<small>{credit}</small></figcaption>
</figure>
"""

PAGE = """\
# Gallery

Move a slider: left of it is the photo before, right of it the photo after.
Before means enlarged by bicubic interpolation, and after means one step of the shipped student at x4.
The student has 4.7 million parameters and runs on a CPU.
It shows that the method works, and it is no match for a model of 12 billion.

<div class="gallery" markdown="0">
{sliders}</div>

No photo here was part of any training.
The cases were chosen by hand, and the last four show what fails.
Both measures compare with the undamaged photo.
PSNR-Y is better when higher, and it rewards smooth pictures; LPIPS (VGG) is a distance of deep features, and lower is better.

```bash
python docs/make_gallery.py    # draws all of it again from the present weights
```

The photos come with scikit-image, and each caption names the license.
More about what the model can do and what it cannot: [the shipped models](models.md).
"""


@torch.inference_mode()
def main() -> None:
    """Restore every case and write pictures and page."""
    folder = DOCS / "images" / "gallery"
    folder.mkdir(exist_ok=True)
    student = Upscaler.from_pretrained(device="cpu")
    perceptual = LPIPSLoss(net="vgg").eval()
    sliders = []
    for number, case in enumerate(CASES, 1):
        hr_image = read(case)
        lr_image = damaged(hr_image, case.damage)
        bicubic = OneStepSR.enlarge(lr_image, hr_image.shape[-2:])
        restored = student(lr_image, scale=SCALE)
        name = f"{number:02d}_{case.photo}"
        pictures = {"before": to_pil_image(bicubic[0].clamp(0, 1)), "after": to_pil_image(restored[0].clamp(0, 1))}
        if case.photo == HERO:
            hero(case, pictures["before"], pictures["after"])
        for when, picture in pictures.items():
            save(picture, folder / f"{name}_{when}.webp")
        values = {
            key: (psnr_y(image, hr_image).item(), perceptual(image, hr_image).item())
            for key, image in (("bicubic", bicubic), ("restored", restored.clamp(0, 1)))
        }
        text = {"caption": case.caption, "damage": case.damage.words, "credit": case.credit}
        height, width = hr_image.shape[-2:]
        sliders.append(SLIDER.format(name=name, width=width, height=height, **text, **values))
        print(f"{name}: {values}")
    (DOCS / "gallery.md").write_text(PAGE.format(sliders="".join(sliders)), "utf-8")


if __name__ == "__main__":
    main()
