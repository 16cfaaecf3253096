"""Make the store that ``distillation.py`` trains on: groups of one crop and its distortions, with their LPIPS-VGG.

    python -m examples.perceptual.make_targets --photos PHOTOS [PHOTOS ...] --output STORE --groups 4000

All pairs within a group get a target, and not one number only but an 8x8 map of where the distance comes from: nine
images cost nine passes of VGG and teach 36 x 64 distances. About a third of the groups hold TV maps (minus 1, as
TVLPIPSLoss feeds its network) instead of images. One file per 40 groups; an interrupted run continues.

    python -m examples.perceptual.make_targets ... --groups 400 --descend-on perceptual_nano.safetensors --name descent-1

adds groups that are stages of a descent on a network trained so far (see descent.py).
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from examples.perceptual.descent import descend, start_of_descent
from examples.perceptual.distortions import SEEN, UNSEEN, Array, distort
from fluxsr.losses.functional import total_variation_map
from fluxsr.losses.lpips_net import LPIPSNet
from fluxsr.losses.perceptual_nano import PerceptualNano, load_perceptual_nano

GROUP_SIZE = 9
CHUNK = 40
CELLS = 8


def find_photos(folders: list[str]) -> tuple[list[Path], list[Path]]:
    """Training and held-out photos. Which is which depends on the name alone, about one in twelve is held out."""
    suffixes = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
    files = sorted(p for folder in folders for p in Path(folder).rglob("*") if p.suffix.lower() in suffixes)
    if not files:
        raise SystemExit(f"no photos in {', '.join(folders)}")
    held_out = [p for p in files if hashlib.sha256(p.stem.encode()).digest()[0] < 24]
    return [p for p in files if p not in set(held_out)], held_out


def random_crop(path: Path, side: int, rng: np.random.Generator) -> Array:
    """A square crop after a random reduction, turned and flipped, ``(side, side, 3)`` in [0, 1]."""
    photo = Image.open(path).convert("RGB")
    largest = min(photo.size) / side
    scale = float(np.exp(rng.uniform(0, np.log(max(1.0, min(3.0, largest))))))
    box = min(int(side * scale), *photo.size)
    left, top = (int(rng.integers(0, extent - box + 1)) for extent in photo.size)
    crop = photo.crop((left, top, left + box, top + box)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(crop, dtype=np.float32) / 255
    pixels = np.rot90(pixels, int(rng.integers(4)))
    return np.ascontiguousarray(pixels[:, ::-1] if rng.random() < 0.5 else pixels)


def make_group(path: Path, side: int, rng: np.random.Generator) -> Array:
    """One crop and eight distorted versions, ``(9, side, side, 3)`` uint8: what is stored is what is measured."""
    crop = random_crop(path, side, rng)
    kind = None
    if rng.random() < 0.3:  # one kind at many strengths: teaches order where it is finest
        kind = list(SEEN)[rng.integers(len(SEEN))]
    images = [crop] + [distort(crop, rng, kind=kind) for _ in range(GROUP_SIZE - 1)]
    return (np.stack(images) * 255).round().astype(np.uint8)


def make_unseen_group(path: Path, side: int, rng: np.random.Generator) -> Array:
    """The same for measuring: half of the versions are of kinds that training never shows."""
    crop = random_crop(path, side, rng)
    kinds = rng.permutation(list(UNSEEN))[: (GROUP_SIZE - 1) // 2]
    images = [crop] + [np.clip(UNSEEN[kind](crop, float(rng.random()), rng), 0, 1) for kind in kinds]
    images += [distort(crop, rng) for _ in range(GROUP_SIZE - len(images))]
    return (np.stack(images) * 255).round().astype(np.uint8)


def to_input(images: Array | Tensor, tv: bool) -> Tensor:
    """What the network sees of stored images: [-1, 1], or their TV maps minus 1."""
    image = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    return total_variation_map(image) - 1 if tv else image * 2 - 1


@torch.no_grad()
def pair_maps(net: LPIPSNet, images: Tensor, *, half: bool = True) -> Tensor:
    """LPIPS of all pairs of ``(N, 3, H, W)`` as maps ``(N, N, cells, cells)`` whose mean is the distance.

    Crops whose side isn't a multiple of 128 get maps that are averaged unevenly in the deepest layers only.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        maps = net.tower((images - net.shift) / net.scale)
    total: Tensor | float = 0.0
    for index, features in enumerate(maps):
        head = getattr(net, f"head{index}")
        unit = F.normalize(features.float(), dim=1).flatten(2).permute(2, 0, 1)  # pixels, N, C
        gram = torch.einsum("pic,pjc->pij", unit * head, unit)
        own = gram.diagonal(dim1=1, dim2=2)
        squared = (own[:, :, None] + own[:, None, :] - 2 * gram).clamp(min=0)
        count = images.shape[0]
        grid = squared.permute(1, 2, 0).reshape(1, count * count, *features.shape[-2:])
        if grid.shape[-1] >= CELLS:
            cells = F.adaptive_avg_pool2d(grid, CELLS)
        else:
            cells = F.interpolate(grid, (CELLS, CELLS), mode="nearest")
        # Uneven pooling would move the mean; the scalar must stay LPIPS exactly.
        cells = cells * (grid.mean((2, 3), keepdim=True) / cells.mean((2, 3), keepdim=True).clamp(min=1e-12))
        total = total + cells.view(count, count, CELLS, CELLS)
    assert isinstance(total, Tensor)
    return total


def make_chunk(
    index: int,
    photos: list[Path],
    net: LPIPSNet,
    seed: int,
    *,
    unseen: bool = False,
    nano: PerceptualNano | None = None,
) -> dict[str, Array]:
    rng = np.random.default_rng([seed, index])
    if nano is not None:
        crops = np.stack([random_crop(photos[rng.integers(len(photos))], 64, rng) for _ in range(CHUNK)])
        images = descend(nano, crops, np.stack([start_of_descent(crop, rng) for crop in crops]), rng)
    else:
        side = 128 if unseen else 96 if index % 5 == 4 else 64
        make = make_unseen_group if unseen else make_group
        images = np.stack([make(photos[rng.integers(len(photos))], side, rng) for _ in range(CHUNK)])
    tv = np.asarray(rng.random(CHUNK) < 0.33)
    maps = [pair_maps(net, to_input(group, bool(flag))).numpy() for group, flag in zip(images, tv, strict=True)]
    return {"images": images, "tv": tv, "maps": np.stack(maps).astype(np.float16)}


def write(path: Path, arrays: dict[str, Array]) -> None:
    temporary = path.with_name("." + path.name)
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.rename(path)  # a reader never sees half a file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", required=True, help="folders with photos, searched at any depth")
    parser.add_argument("--output", type=Path, required=True, help="folder of the store")
    parser.add_argument("--groups", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vgg", default=None, help="file of VGG16's weights (default: FLUXSR_WEIGHTS, torch hub)")
    parser.add_argument("--name", default=None, help="how the files' names begin (default: targets, descent)")
    parser.add_argument("--descend-on", default=None, help="safetensors file of a nano network")
    args = parser.parse_args()
    kind = "descent" if args.descend_on else "targets"
    name = args.name or kind
    if not name.startswith(kind):
        raise SystemExit(f"--name must begin with {kind}, by which the training knows what it holds; got {name}")
    nano = load_perceptual_nano(args.descend_on) if args.descend_on else None
    photos, held_out = find_photos(args.photos)
    if not held_out:
        raise SystemExit(f"none of {len(photos)} photos is held out, which about one in twelve is: give more photos")
    net = LPIPSNet.load("vgg", args.vgg)
    args.output.mkdir(parents=True, exist_ok=True)
    chunks = -(-args.groups // CHUNK)
    print(f"{len(photos)} photos for training, {len(held_out)} held out; {chunks} files of {CHUNK} groups")
    start = time.perf_counter()
    if not (args.output / "held_out.npz").exists():
        write(args.output / "held_out.npz", make_chunk(0, held_out, net, args.seed + 1, unseen=True))
    for index in range(chunks):
        path = args.output / f"{name}-{index:05d}.npz"
        if path.exists():
            continue
        write(path, make_chunk(index, photos, net, args.seed, nano=nano))
        print(f"\r{index + 1}/{chunks} files, {time.perf_counter() - start:.0f} s", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
