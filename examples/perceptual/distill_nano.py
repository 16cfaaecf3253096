"""Distil LPIPS-VGG into the small network of ``net="nano"``, from random weights.

    python examples/perceptual/make_targets.py --photos PHOTOS --output STORE --groups 8000
    python examples/perceptual/distill_nano.py --store STORE --output perceptual_nano.safetensors --steps 10000

An interrupted run continues from ``OUTPUT.checkpoint``; a batch depends on seed, step and the files in the store. The
output is written every ``--save-every`` steps from the running average of the weights: usable while training goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from make_targets import CELLS, to_input
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from fluxsr.losses.perceptual_nano import PerceptualNano, load_perceptual_nano

FLOOR = 0.004  # distances below it needn't be told apart


class Store:
    """Chunks of groups, read as they appear; all stay in memory (about 1 MB per 10 groups)."""

    def __init__(self, folder: Path, descents: float) -> None:
        self.folder = folder
        self.descents = descents
        self.chunks: dict[str, list[dict[str, np.ndarray]]] = {"targets": [], "descent": []}
        self.refresh()

    def refresh(self) -> None:
        for kind, chunks in self.chunks.items():
            for path in sorted(self.folder.glob(f"{kind}-*.npz"))[len(chunks) :]:
                with np.load(path) as file:
                    chunks.append({name: file[name] for name in file.files})

    def batch(self, rng: np.random.Generator, groups: int) -> tuple[Tensor, Tensor]:
        """Network inputs ``(groups, 9, 3, H, W)`` and target maps ``(groups, 9, 9, 8, 8)``."""
        descents = self.chunks["descent"] and rng.random() < self.descents
        chunks = self.chunks["descent" if descents else "targets"]
        chunk = chunks[rng.integers(len(chunks))]
        rows = rng.choice(len(chunk["tv"]), groups, replace=False)
        images = torch.stack([to_input(chunk["images"][row], bool(chunk["tv"][row])) for row in rows])
        targets = torch.from_numpy(chunk["maps"][rows].astype(np.float32))
        if rng.random() < 0.5:  # flips and turns are free: the target map turns along
            images, targets = images.flip(-1), targets.flip(-1)
        turns = int(rng.integers(4))
        return images.rot90(turns, (-2, -1)), targets.rot90(turns, (-2, -1))


def pair_maps(net: PerceptualNano, images: Tensor) -> Tensor:
    """Distances of all pairs within each group, ``(groups, pairs, cells, cells)``."""
    groups, count = images.shape[:2]
    rows, columns = torch.triu_indices(count, count, 1)
    total: Tensor | float = 0.0
    flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):  # half the time; the differences below stay in float32
        maps = net.features(flat)
    for features, head in zip((features.float() for features in maps), net.heads, strict=True):
        side, channels = features.shape[-1], features.shape[1]
        # |a - b|^2 = a.a + b.b - 2 a.b per cell: 36 pairs for the price of one small matrix product.
        block = side // CELLS if side % CELLS == 0 else 1
        cells = side // block
        blocks = features.view(groups, count, channels, cells, block, cells, block).permute(0, 3, 5, 1, 4, 6, 2)
        weighted = (blocks * head).reshape(groups, cells, cells, count, -1)
        gram = weighted @ blocks.reshape(groups, cells, cells, count, -1).transpose(-1, -2)
        own = gram.diagonal(dim1=-2, dim2=-1)
        grid = (own[..., rows] + own[..., columns] - 2 * gram[..., rows, columns]).clamp(min=0) / block**2
        grid = grid.permute(0, 3, 1, 2)
        grid = F.adaptive_avg_pool2d(grid, CELLS) if cells >= CELLS else F.interpolate(grid, (CELLS, CELLS))
        total = total + grid
    assert isinstance(total, Tensor)
    return total


def distillation_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Error of the logarithm of the distances and, at half the weight, of their maps."""

    def gap(x: Tensor, y: Tensor) -> Tensor:
        return F.smooth_l1_loss((x + FLOOR).log(), (y + FLOOR).log(), beta=0.3)

    return gap(prediction.mean((-2, -1)), target.mean((-2, -1))) + 0.5 * gap(prediction, target)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, a plateau, then down in a straight line over the last 40 %."""
    return peak * min(1.0, (step + 1) / 100, max(0.01, (steps - step) / (0.4 * steps)))


def save(net: PerceptualNano, path: Path, metadata: dict[str, str]) -> None:
    state = {name: value.detach().contiguous().half() for name, value in net.state_dict().items()}
    temporary = path.with_name(path.name + ".part")
    save_file(state, temporary, metadata=metadata)
    temporary.replace(path)


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's."""
    ranks = torch.stack([x.flatten().argsort().argsort().double(), y.flatten().argsort().argsort().double()])
    return float(torch.corrcoef(ranks)[0, 1])


@torch.no_grad()
def validate(net: PerceptualNano, path: Path) -> float:
    """Rank correlation over the pairs (crop, distorted crop) of held-out photos and kinds of distortion."""
    with np.load(path) as file:
        images, tv, maps = file["images"], file["tv"], torch.from_numpy(file["maps"].astype(np.float32))
    net_distances, vgg_distances = [], []
    for group, flag, target in zip(images, tv, maps, strict=True):
        x = to_input(group, bool(flag))
        net_distances.append(net(x[:1].expand(len(x) - 1, -1, -1, -1), x[1:]).flatten())
        vgg_distances.append(target[0, 1:].mean((-2, -1)))
    return rank_correlation(torch.cat(net_distances), torch.cat(vgg_distances))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="folder that make_targets.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=4, help="groups of nine images per step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--descents", type=float, default=0.5, help="share of batches from descent-*.npz, if any")
    parser.add_argument("--start", type=Path, default=None, help="safetensors file to go on from (default: random)")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    store = Store(args.store, args.descents)
    if not store.chunks["targets"]:
        raise SystemExit(f"no targets-*.npz in {args.store}: run make_targets.py first")
    net, average = PerceptualNano().to(memory_format=torch.channels_last), PerceptualNano()
    if args.start is not None:
        net.load_state_dict(load_perceptual_nano(args.start).state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.learning_rate, weight_decay=1e-4)
    checkpoint = args.output.with_name(args.output.name + ".checkpoint")
    first, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first, seconds = state["step"], state["seconds"]
        print(f"continuing at step {first}")
    else:
        average.load_state_dict(net.state_dict())

    start, running = time.perf_counter() - seconds, 0.0
    for step in range(first, args.steps):
        rng = np.random.default_rng([args.seed, step])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.learning_rate)
        images, targets = store.batch(rng, args.groups)
        rows, columns = torch.triu_indices(targets.shape[1], targets.shape[1], 1)
        loss = distillation_loss(pair_maps(net, images), targets[:, rows, columns])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for head in net.heads:
                head.clamp_(min=0)  # a negative weight would reward a difference
            decay = min(0.998, (step + 1) / (step + 10))
            for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        running += loss.item()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            held_out = args.store / "held_out.npz"
            correlation = validate(average, held_out) if held_out.exists() else float("nan")
            elapsed = time.perf_counter() - start
            mean, running = running / (step % args.save_every + 1), 0.0
            print(
                f"step {step + 1} loss {mean:.4f} held-out rank correlation {correlation:.4f} {elapsed:.0f} s",
                flush=True,
            )
            metadata = {
                "widths": json.dumps(net.widths),
                "seed": str(args.seed),
                "step": f"{step + 1} of {args.steps}",
                "command": f"distill_nano.py --store STORE --output OUTPUT --steps {args.steps} --groups {args.groups}"
                f" --learning-rate {args.learning_rate} --seed {args.seed}" + (" --start START" if args.start else ""),
            }
            save(average, args.output, metadata)
            content = {
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
                "seconds": elapsed,
            }
            torch.save(content, checkpoint.with_name(checkpoint.name + ".part"))
            os.replace(checkpoint.with_name(checkpoint.name + ".part"), checkpoint)
            store.refresh()


if __name__ == "__main__":
    main()
