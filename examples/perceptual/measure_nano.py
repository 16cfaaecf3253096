"""Measure a nano perceptual network against LPIPS-VGG: does it rank alike, and does its gradient help?

    python -m examples.perceptual.measure_nano                      # the photos that scikit-image ships
    python -m examples.perceptual.measure_nano --photos PHOTOS      # the held-out part of the training folders

Prints Spearman's rank correlation, of the squared error too, over crops of 64 to 256 pixels; then LPIPS-VGG before
and after descending on the network from a blurred crop.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from examples.perceptual.distortions import SEEN, UNSEEN, Array, distort
from examples.perceptual.make_targets import find_photos, to_input
from fluxsr.losses import LPIPSLoss
from fluxsr.losses.lpips_net import LPIPSNet
from fluxsr.losses.perceptual_nano import PerceptualNano, load_perceptual_nano


def read_photos(folders: list[str] | None) -> list[Array]:
    """Photos as ``(H, W, 3)`` in [0, 1]."""
    if folders:
        return [np.asarray(Image.open(p).convert("RGB"), dtype=np.float32) / 255 for p in find_photos(folders)[1]]
    from skimage import data

    names = ("astronaut", "coffee", "chelsea", "rocket")
    return [getattr(data, name)().astype(np.float32) / 255 for name in names]


def crop(photo: Array, side: int, rng: np.random.Generator) -> Array:
    top, left = (int(rng.integers(extent - side + 1)) for extent in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + side, left : left + side])


class Distances:
    """Distances of pairs by both networks and by the squared error, with what they are of."""

    def __init__(self, nano: PerceptualNano, vgg: LPIPSNet) -> None:
        self.nano, self.vgg = nano, vgg
        self.rows: list[tuple[float, float, float]] = []
        self.labels: list[set[str]] = []

    @torch.no_grad()
    def add(self, reference: Array, others: Iterable[tuple[str, Array]], tags: set[str], *, tv: bool = False) -> None:
        x = to_input((reference * 255).round().astype(np.uint8)[None], tv)
        for kind, other in others:
            y = to_input((np.clip(other, 0, 1) * 255).round().astype(np.uint8)[None], tv)
            squared = (x - y).square().mean()
            self.rows.append((float(self.nano(x, y)), float(squared), float(self.vgg(x, y))))
            self.labels.append({kind, *tags})

    def show(self, tag: str) -> None:
        rows = torch.tensor([row for row, labels in zip(self.rows, self.labels, strict=True) if tag in labels])
        if len(rows) > 1:
            nano, squared = (float(spearman_corrcoef(rows[:, column], rows[:, 2])) for column in (0, 1))
            print(f"  {tag:22} {len(rows):5} pairs   nano {nano:.3f}   squared error {squared:.3f}", flush=True)


def measure_ranks(nano: PerceptualNano, vgg: LPIPSNet, photos: list[Array], rng: np.random.Generator) -> None:
    distances = Distances(nano, vgg)
    for side, count in ((64, 4), (128, 2), (256, 1)):
        for photo in photos:
            for _ in range(count):
                reference = crop(photo, side, rng)
                tags = {"all", f"{side} px", "images"}
                unseen = [(kind, call(reference, float(rng.random()), rng)) for kind, call in UNSEEN.items()]
                distances.add(reference, unseen, tags | {"unseen kinds"})
                kinds = rng.permutation(list(SEEN))[:5]
                seen = [(str(kind), distort(reference, rng, kind=str(kind))) for kind in kinds]
                distances.add(reference, seen, tags | {"seen kinds"})
                distances.add(reference, [unseen[0], *seen[:2]], {"TV maps"}, tv=True)
    for tag in ("all", "seen kinds", "unseen kinds", "64 px", "128 px", "256 px", "TV maps", *UNSEEN):
        distances.show(tag)


def measure_descent(nano: PerceptualNano, vgg: LPIPSNet, photos: list[Array], rng: np.random.Generator) -> None:
    loss = LPIPSLoss(nano)
    stages = (0, 10, 30, 100)
    shares = []
    for index, photo in enumerate(photos[:12]):
        reference = crop(photo, 64, rng)
        start = SEEN[("gaussian_blur", "down_up")[index % 2]](reference, 0.75, rng).clip(0, 1)
        hr_image, image = (torch.from_numpy(i.transpose(2, 0, 1)).contiguous()[None] for i in (reference, start))
        image.requires_grad_()
        optimizer = torch.optim.Adam([image], lr=0.003)
        distances = []
        for step in range(stages[-1] + 1):
            if step in stages:
                distances.append(lpips(vgg, image, hr_image))
            optimizer.zero_grad()
            (loss(image, hr_image) + 0.1 * (image - hr_image).abs().mean()).backward()
            optimizer.step()
        shares.append([distance / distances[0] for distance in distances])
    for stage, share in zip(stages, np.transpose(shares), strict=True):
        print(
            f"  after {stage:3} steps LPIPS-VGG is at {share.mean():.2f} of its start (worst photo {share.max():.2f})"
        )


@torch.no_grad()
def lpips(vgg: LPIPSNet, x: Tensor, y: Tensor) -> float:
    return float(vgg(x.clamp(0, 1) * 2 - 1, y * 2 - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", default=None, help="the folders given to make_targets")
    parser.add_argument("--weights", default=None, help="safetensors file (default: the shipped one)")
    parser.add_argument("--vgg", default=None, help="file or folder of VGG16's weights")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    nano, vgg = load_perceptual_nano(args.weights), LPIPSNet.load("vgg", args.vgg)
    photos = read_photos(args.photos)
    print(f"rank correlation with LPIPS-VGG, {len(photos)} photos")
    measure_ranks(nano, vgg, photos, np.random.default_rng(args.seed))
    print("descent from blurred and reduced crops (Adam, 0.003, plus 0.1 L1)")
    measure_descent(nano, vgg, photos, np.random.default_rng(args.seed + 1))


if __name__ == "__main__":
    main()
