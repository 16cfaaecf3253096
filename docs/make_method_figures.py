"""Draws the figures of docs/how-it-works.md: FTD's triangle, the noise-to-LR path, and what TV-LPIPS and ADL see.

python docs/make_method_figures.py        # needs the extra demo, for the photos of scikit-image
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from skimage import data
from torch import Tensor

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


def triangle() -> None:
    """The three flows: noise to image is noise to LR and LR to image, in the shares of their times."""
    ends = {"noise": (1.0, 0.72), "LR": (0.25, 0.62), "HR": (0.0, 0.0)}
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    arrows = (
        ("HR", "noise", BLUE, "u = ε - z₀\nthe teacher's flow, t from 1 to 0", (0.60, 0.22)),
        ("LR", "noise", GRAY, "(1 - T_L) u_L = ε - z_L\nnoise to LR: known", (0.60, 0.80)),
        ("HR", "LR", ORANGE, "T_L v = z_L - z₀\nLR to HR: what the student learns", (-0.34, 0.36)),
    )
    for start, end, color, text, place in arrows:
        style = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "shrinkA": 7, "shrinkB": 7}
        axis.annotate("", ends[end], ends[start], arrowprops=style)
        axis.text(*place, text, color=color, fontsize=10.5, ha="center", va="center")
    labels = {
        "noise": ("noise ε\nt = 1", (12, 0)),
        "LR": ("LR latents z_L\nt = T_L", (-10, 16)),
        "HR": ("HR latents z₀, t = 0", (12, -4)),
    }
    for name, (text, offset) in labels.items():
        axis.plot(*ends[name], "o", color="black", ms=8)
        side = "right" if name == "LR" else "left"
        axis.annotate(text, ends[name], offset, textcoords="offset points", fontsize=10.5, ha=side, va="center")
    axis.set(xlim=(-0.68, 1.2), ylim=(-0.1, 0.9), aspect="equal")
    axis.axis("off")
    figure.savefig(IMAGES / "ftd_triangle.png", dpi=110)
    plt.close(figure)


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
