"""Distills LPIPS-VGG into the small network of ``net="nano"``, from random weights.

    python -m examples.perceptual.make_targets --photos PHOTOS --output STORE --groups 8000
    fluxsr fit --config perceptual_nano --data.store STORE

``fluxsr fit`` trains any LightningModule that a configuration names; this one is an example of that, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchmetrics.functional import spearman_corrcoef

from examples.perceptual.make_targets import CELLS, CHUNK, to_input
from fluxsr.losses.perceptual_nano import PerceptualNano, load_perceptual_nano
from fluxsr.models.weight_files import write_safetensors
from fluxsr.training.callbacks import EMA

FLOOR = 0.004  # distances below it needn't be told apart


class PerceptualDistillation(LightningModule):
    """A small network that learns LPIPS-VGG's distances of all pairs in a group of nine images, and where they come from.

    It writes itself to ``output`` after each validation, usable while training goes on, and at the end.

    Args:
        output: safetensors file.
        start: safetensors file to go on from; ``None``: random weights.
        lr: peak of the learning rate, after 100 steps of warm-up and before the fall over the last 40 %.
        weight_decay: AdamW's.
    """

    def __init__(
        self,
        output: str = "perceptual_nano.safetensors",
        start: str | None = None,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.output, self.lr, self.weight_decay = Path(output), lr, weight_decay
        net = PerceptualNano()
        if start is not None:
            net.load_state_dict(load_perceptual_nano(start).state_dict())
        self.net = net.requires_grad_(True).to(memory_format=torch.channels_last)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        rows, columns = torch.triu_indices(targets.shape[1], targets.shape[1], 1)
        loss = distillation_loss(pair_maps(self.net, images), targets[:, rows, columns])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        if self.trainer.max_steps < 1:
            raise ValueError("trainer.max_steps must be given: the learning rate falls towards it")
        steps = self.trainer.max_steps
        factor = lambda step: min(1.0, (step + 1) / 100, max(0.01, (steps - step) / (0.4 * steps)))  # noqa: E731
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        for head in self.net.heads:
            head.clamp_(min=0)  # a negative weight would reward a difference

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Rank the pairs of a crop and its distorted versions."""
        images, targets = batch
        distances = self.net(images[:1].expand(len(images) - 1, -1, -1, -1), images[1:])
        self.seen.append((distances.flatten().float(), targets[0, 1:].mean((-2, -1))))

    def on_validation_epoch_end(self) -> None:
        predictions, targets = map(torch.cat, zip(*self.seen, strict=True))
        self.log("val/rank_correlation", spearman_corrcoef(predictions, targets))
        self.seen.clear()
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.save()  # of the average, which validation runs on

    def on_fit_end(self) -> None:
        ema = next((callback for callback in self.trainer.callbacks if isinstance(callback, EMA)), None)
        with ema.averaged(self) if ema is not None else nullcontext():
            self.save()

    @rank_zero_only
    def save(self) -> None:
        state = {name: value.half() for name, value in self.net.state_dict().items()}
        metadata = {"widths": json.dumps(self.net.widths), "steps": str(self.trainer.global_step)}
        write_safetensors(self.output, state, metadata)


class PerceptualTargets(LightningDataModule):
    """The store that ``make_targets`` wrote, in memory (about 1 MB for 10 groups).

    What a step trains on depends on the seed and its number alone, so a resumed training sees the same.

    Args:
        store: the folder.
        groups: of nine images, in a step; at most 40, the groups of one file.
        descents: share of the steps on stages of a descent, if there are any.
        seed: of the draws.

    Raises:
        ValueError: if there are no targets in the folder, or a number is out of range.
    """

    def __init__(self, store: str, groups: int = 4, descents: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.store, self.groups, self.descents, self.seed = Path(store), groups, descents, seed
        if not 1 <= groups <= CHUNK:
            raise ValueError(f"groups must be between 1 and {CHUNK}, the groups of one file, got {groups}")
        if not 0 <= descents <= 1:
            raise ValueError(f"descents is a share, between 0 and 1, got {descents}")
        if not any(self.store.glob("targets-*.npz")):
            raise ValueError(
                f"there is no targets-*.npz in {store}: run python -m examples.perceptual.make_targets first"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        # Asked when the first batch is drawn: a checkpoint is loaded by then, and the steps go on where they were.
        batches = Batches(self.store, self.groups, self.descents, self.seed, lambda: self.trainer.global_step)
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        path = self.store / "held_out.npz"
        return DataLoader(HeldOut(path), batch_size=None) if path.is_file() else []


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Network inputs ``(groups, 9, 3, H, W)`` and target maps ``(groups, 9, 9, 8, 8)``, without end."""

    def __init__(self, store: Path, groups: int, descents: float, seed: int, steps_done: Callable[[], int]) -> None:
        self.groups, self.descents, self.seed, self.steps_done = groups, descents, seed, steps_done
        self.chunks = {
            kind: [load(path) for path in sorted(store.glob(f"{kind}-*.npz"))] for kind in ("targets", "descent")
        }

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return map(self.batch, count(self.steps_done()))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        descents = self.chunks["descent"] and rng.random() < self.descents
        chunks = self.chunks["descent" if descents else "targets"]
        chunk = chunks[rng.integers(len(chunks))]
        rows = rng.choice(len(chunk["tv"]), self.groups, replace=False)
        images = torch.stack([to_input(chunk["images"][row], bool(chunk["tv"][row])) for row in rows])
        targets = torch.from_numpy(chunk["maps"][rows].astype(np.float32))
        if rng.random() < 0.5:  # flips and turns are free: the target map turns along
            images, targets = images.flip(-1), targets.flip(-1)
        turns = int(rng.integers(4))
        return images.rot90(turns, (-2, -1)), targets.rot90(turns, (-2, -1))


class HeldOut(Dataset[tuple[Tensor, Tensor]]):
    """Groups of photos that training never shows; half of the distortions are of kinds that it never shows either."""

    def __init__(self, path: Path) -> None:
        self.chunk = load(path)

    def __len__(self) -> int:
        return len(self.chunk["tv"])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images = to_input(self.chunk["images"][index], bool(self.chunk["tv"][index]))
        return images, torch.from_numpy(self.chunk["maps"][index].astype(np.float32))


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def pair_maps(net: PerceptualNano, images: Tensor) -> Tensor:
    """Distances of all pairs within each group, ``(groups, pairs, cells, cells)``."""
    groups, size = images.shape[:2]
    rows, columns = torch.triu_indices(size, size, 1)
    total: Tensor | float = 0.0
    flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    maps = net.features(flat)
    for features, head in zip((features.float() for features in maps), net.heads, strict=True):
        side, channels = features.shape[-1], features.shape[1]
        # |a - b|^2 = a.a + b.b - 2 a.b per cell: 36 pairs for the price of one small matrix product.
        block = side // CELLS if side % CELLS == 0 else 1
        cells = side // block
        blocks = features.view(groups, size, channels, cells, block, cells, block).permute(0, 3, 5, 1, 4, 6, 2)
        # float32 also under autocast: a difference of nearly equal products.
        with torch.autocast(images.device.type, enabled=False):
            weighted = (blocks * head).reshape(groups, cells, cells, size, -1)
            gram = weighted @ blocks.reshape(groups, cells, cells, size, -1).transpose(-1, -2)
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
