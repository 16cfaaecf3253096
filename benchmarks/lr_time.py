"""How T_L depends on the damage and the latent space, and how large each term's gradient is at the start of a training.

    python -m benchmarks.lr_time --photos PHOTOS --autoencoder TAEF1 [--model STUDENT]

``TAEF1`` is a folder with FLUX.1's small autoencoder (madebyollin/taef1); pixels are measured beside it. With ``--model``, a
transformer on that autoencoder's latents, the gradient norms of FluxSR's terms are printed for several T_L.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.data import BicubicDegradation, RealESRGANDegradation
from fluxsr.data.degradation import Degradation
from fluxsr.flows import FlowTrajectoryDistillation, LatentPair, calibrate_lr_time
from fluxsr.images import list_images, read_image
from fluxsr.losses import AttentionDiversificationLoss, MSELoss, PeriodicityLoss, TVLPIPSLoss
from fluxsr.models import load_autoencoder, load_flux
from fluxsr.training import FeatureTerm, ImageTerm, OneStepSR, StepOutputs
from fluxsr.training.terms import gradient_norms

SIDE = 256
# As in examples/configs/student_nano.yaml: what a camera or one careful upload leaves.
MILD = {
    "first": {
        "blur_sigma": (0.2, 2.0), "resize_prob": (0.1, 0.3, 0.6), "resize_range": (0.5, 1.2), "noise_range": (0.1, 6.0),
        "poisson_scale_range": (0.01, 0.4), "jpeg_range": (80, 100),
    },
    "second": {
        "resize_prob": (0.1, 0.3, 0.6), "resize_range": (0.6, 1.2), "noise_range": (0.1, 4.0),
        "poisson_scale_range": (0.01, 0.3), "jpeg_range": (80, 100),
    },
    "second_blur_prob": 0.3,
    "final_sinc_prob": 0.3,
}  # fmt: skip


def photos_in(folder: str) -> Tensor:
    """Return the middle squares of all photos, ``(N, 3, 256, 256)``."""
    squares = []
    for path in list_images(folder):
        image = read_image(path)
        top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
        squares.append(image[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(squares)


def mild() -> Degradation:
    """Return Real-ESRGAN's degradation at little damage."""
    from dataclasses import replace

    heavy = RealESRGANDegradation()
    first, second = (replace(getattr(heavy, name), **MILD[name]) for name in ("first", "second"))
    return RealESRGANDegradation(first=first, second=second, second_blur_prob=0.3, final_sinc_prob=0.3)


def pair_of(autoencoder: torch.nn.Module, photos: Tensor, degradation: Degradation) -> LatentPair:
    """Return the latents of photos, of their damaged copies, and seeded noise."""
    lr = degradation(photos, seeds=list(range(len(photos))))
    enlarged = interpolate(lr, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
    with torch.inference_mode():
        hr_latents, lr_latents = (torch.cat([autoencoder.encode(one[None]) for one in x]) for x in (photos, enlarged))
    noise = torch.randn(hr_latents.shape, generator=torch.Generator().manual_seed(0))
    return LatentPair(hr_latents, lr_latents, noise)


def print_times(photos: Tensor, autoencoder: str) -> None:
    """Print T_L by both rules for each damage, on latents and on pixels."""
    print(
        "| latents | damage | rms(z_L - z_0) | norm | 10 % to 90 % | snr | 10 % to 90 % |\n|---|---|---|---|---|---|---|"
    )
    damages = {"bicubic x4": BicubicDegradation(), "mild": mild(), "Real-ESRGAN": RealESRGANDegradation()}
    for name, source in (("taef1", autoencoder), ("pixels (nano)", "pixel")):
        loaded = load_autoencoder(source)
        for damage, degradation in damages.items():
            pair = pair_of(loaded, photos, degradation)
            distance = float((pair.lr - pair.hr).square().mean().sqrt())
            cells = []
            for rule in ("norm", "snr"):
                estimate = calibrate_lr_time([pair], rule)
                low, high = torch.quantile(estimate.per_image, torch.tensor([0.1, 0.9])).tolist()
                cells += [f"{estimate.lr_time:.2f}", f"{low:.2f} to {high:.2f}"]
            print(f"| {name} | {damage} | {distance:.3f} | {' | '.join(cells)} |")


def print_gradients(photos: Tensor, autoencoder: str, model: str, times: list[float]) -> None:
    """Print the norm of each term's gradient over all weights, at weight 1, for several T_L."""
    terms = {
        "mse": ImageTerm(MSELoss()),
        "tv_lpips": ImageTerm(TVLPIPSLoss(net="vgg")),
        "adl": FeatureTerm(AttentionDiversificationLoss()),
        "periodicity": ImageTerm(PeriodicityLoss()),
    }
    print(f"\n| T_L | FTD | {' | '.join(terms)} |\n|---|{'---|' * (len(terms) + 1)}")
    backbone = load_flux(model, trainable="full")
    lr = RealESRGANDegradation()(photos, seeds=list(range(len(photos))))
    for time in times:
        objective = FlowTrajectoryDistillation(time)
        module = OneStepSR(backbone, load_autoencoder(autoencoder), objective, terms, seed=0)
        batch = {"hr_image": photos, "lr_image": lr}
        from fluxsr.training.batches import as_batch

        output, passes = module.flow(module.encode(as_batch(batch)))
        outputs = StepOutputs(output, photos, module.decode, module.autoencoder.downsample, passes)
        norms = gradient_norms(module.compute_terms(outputs), module.trained.parameters().values())
        print(f"| {time:g} | " + " | ".join(f"{float(norm):.3g}" for norm in norms.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of photos of 256 pixels or more")
    parser.add_argument("--autoencoder", required=True, help="folder of taef1")
    parser.add_argument("--model", help="a transformer on these latents: the gradient norms, too")
    parser.add_argument("--times", type=float, nargs="+", default=[0.25, 0.46, 0.6])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    photos = photos_in(arguments.photos)
    print(f"{len(photos)} photos, their middle {SIDE}x{SIDE} pixels\n")
    print_times(photos, arguments.autoencoder)
    if arguments.model:
        print_gradients(photos[:4], arguments.autoencoder, arguments.model, arguments.times)


if __name__ == "__main__":
    main()
