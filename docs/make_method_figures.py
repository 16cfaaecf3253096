"""Draws the figures of docs/how-it-works.md: FTD's triangle, the noise-to-LR path, and what TV-LPIPS and ADL see.

python docs/make_method_figures.py        # needs the extra demo, for the photos of scikit-image
"""

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from skimage import data
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from fluxsr.data import RealESRGANDegradation
from fluxsr.flows import FlowTrajectoryDistillation
from fluxsr.losses.functional import token_diversity, total_variation_map
from fluxsr.models import FeatureTap, PixelAutoencoder, load_flux
from fluxsr.training import OneStepSR

IMAGES = Path(__file__).parent / "images"
BLUE, ORANGE, GRAY = "#2a6fbb", "#d9822b", "#8a8a8a"
LR_TIME = 0.25


def photo(name: str, top: int, left: int, side: int = 256) -> Tensor:
    """Return a square ``(1, 3, side, side)`` in [0, 1] of one of scikit-image's photos."""
    pixels = getattr(data, name)()[top : top + side, left : left + side]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def degraded(hr_image: Tensor, seed: int) -> Tensor:
    """Return its LR image by Real-ESRGAN's pipeline at x4, enlarged again."""
    lr_image = RealESRGANDegradation(4)(hr_image[0], seeds=seed)
    return OneStepSR.enlarge(lr_image[None], hr_image.shape[-2:])


def show(axis: Axes, image: Tensor, title: str, **options: Any) -> None:
    """Show an image ``(1, C, H, W)`` or a map ``(H, W)`` without axes."""
    pixels = image if image.ndim == 2 else image[0].permute(1, 2, 0).clamp(0, 1)
    axis.imshow(pixels.squeeze(-1), interpolation="nearest", **options)
    axis.set_title(title, fontsize=10)
    axis.axis("off")


def corner(image: Tensor, side: int = 120) -> str:
    """Return an image ``(1, 3, H, W)`` as the address of a small JPEG file inside an SVG."""
    file = io.BytesIO()
    to_pil_image(image[0].clamp(0, 1)).resize((side, side)).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def triangle() -> None:
    """The three flows: noise to image is noise to LR and LR to image, in the shares of their times."""
    hr_image = photo("chelsea", 10, 100)
    noise = torch.randn(hr_image.shape, generator=torch.Generator().manual_seed(0))
    pictures = {
        (40, 250): (hr_image, "HR latents z\u2080, t = 0"),
        (40, 20): (degraded(hr_image, seed=3), "LR latents z_L, t = T_L"),
        (600, 90): ((noise * 0.25 + 0.5).clamp(0, 1), "noise \u03b5, t = 1"),
    }
    arrows = (
        ((600, 175), (168, 320), BLUE, "u: the teacher's flow from noise to HR", (470, 292)),
        ((600, 130), (168, 85), GRAY, "u_L: from noise to LR, known", (400, 74)),
        ((100, 166), (100, 246), ORANGE, "u_SR: from LR to HR, what the student learns", (116, 208)),
    )
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 400" font-family="sans-serif" font-size="15">',
        '<rect width="760" height="400" fill="white"/>',
    ]
    for number, (start, end, color, text, place) in enumerate(arrows):
        parts.append(
            f'<marker id="m{number}" markerWidth="9" markerHeight="9" refX="7" refY="4" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{color}"/></marker>'
            f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="{color}" stroke-width="3" '
            f'marker-end="url(#m{number})"/>'
            f'<text x="{place[0]}" y="{place[1]}" fill="{color}" '
            f'text-anchor="{"start" if number == 2 else "middle"}">{text}</text>'
        )
    for (left, top), (image, text) in pictures.items():
        below = top + 138
        parts.append(f'<image x="{left}" y="{top}" width="120" height="120" href="{corner(image)}"/>')
        place = (left + 130, top + 16, "start") if left < 100 else (left + 60, below, "middle")
        parts.append(f'<text x="{place[0]}" y="{place[1]}" text-anchor="{place[2]}">{text}</text>')
    parts.append('<text x="520" y="365" text-anchor="middle">u = (1 - T_L) u_L + T_L u_SR</text></svg>')
    (IMAGES / "ftd_triangle.svg").write_text("\n".join(parts), "utf-8")


def noise_to_lr() -> None:
    """States of the noise-to-LR path, then the HR image that one step from its end should reach."""
    hr_image = photo("chelsea", 10, 100)
    lr_image = degraded(hr_image, seed=3)
    objective, autoencoder = FlowTrajectoryDistillation(LR_TIME), PixelAutoencoder()
    hr, lr = autoencoder.encode(hr_image), autoencoder.encode(lr_image)
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    times = (1.0, 0.75, 0.5, LR_TIME)
    figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
    for axis, t in zip(axes, times, strict=False):
        state = objective.path(lr, noise, torch.tensor([t]))
        name = {1.0: "noise, t = 1", LR_TIME: f"LR, t = T_L = {LR_TIME}"}.get(t, f"t = {t}")
        show(axis, autoencoder.decode(state), name)
    reached = objective.restore(lambda xt, t: (lr - hr) / LR_TIME, lr)  # the velocity that training asks for
    assert torch.allclose(reached, hr, atol=1e-5)
    show(axes[4], autoencoder.decode(reached), "HR, one step, t = 0")
    figure.savefig(IMAGES / "noise_to_lr.png", dpi=110)
    plt.close(figure)


def with_grid(image: Tensor, period: int = 16, strength: float = 0.04) -> Tensor:
    """Add the fault that TV-LPIPS and ADL are there for: a faint grid with the period of FLUX's tokens."""
    rows = (torch.arange(image.shape[-2]) % period < 2)[:, None]
    columns = (torch.arange(image.shape[-1]) % period < 2)[None]
    return (image + strength * (rows | columns)).clamp(0, 1)


def tv_maps() -> None:
    """What TV-LPIPS compares besides the images: their total variation maps."""
    hr_image = photo("astronaut", 0, 140)
    images = {
        "HR": hr_image,
        "too smooth (LR, enlarged)": degraded(hr_image, 5),
        "a faint grid of 16 pixels": with_grid(hr_image),
    }
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.3), layout="constrained")
    for column, (name, image) in zip(axes.T, images.items(), strict=True):
        show(column[0], image, name)
        show(column[1], total_variation_map(image).mean(dim=1)[0], "its TV map", cmap="magma", vmin=0, vmax=0.25)
    figure.savefig(IMAGES / "tv_maps.png", dpi=110)
    plt.close(figure)


@torch.no_grad()
def token_cosines() -> None:
    """What ADL averages: each token's cosine with the mean token of its layer, of the shipped teacher on a real crop."""
    crop = photo("astronaut", 20, 160, side=128)
    lr_image = degraded(crop, seed=3)
    backbone = load_flux("nano", trainable="none")
    latents = PixelAutoencoder().encode(lr_image)
    with FeatureTap(backbone).record() as features:
        backbone(latents, torch.tensor([LR_TIME]))
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.75), layout="constrained")
    show(axes[0], lr_image, "the LR image")
    layers = (0, len(features) // 2, len(features) - 1)
    for axis, layer in zip(axes[1:], layers, strict=True):
        tokens = features[layer].float()
        cosines = torch.cosine_similarity(tokens, tokens.mean(dim=1, keepdim=True), dim=2)[0]
        value = token_diversity(tokens).item()
        assert abs(cosines.mean().item() - value) < 1e-5
        side = int(len(cosines) ** 0.5)
        title = f"layer {layer + 1} of {len(features)}, mean {value:.2f}"
        show(axis, cosines.reshape(side, side), title, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(axes[-1].images[0], ax=axes[-1], shrink=0.8)
    figure.savefig(IMAGES / "adl_tokens.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    triangle()
    noise_to_lr()
    tv_maps()
    token_cosines()
