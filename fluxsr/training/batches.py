"""Turns batches, also the user's own dictionaries and tuples, into latents; draws what no number of processes changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.data import LRBatch, SRBatch
from fluxsr.flows import LatentPair
from fluxsr.models import LatentAutoencoder
from fluxsr.protocols import Autoencoder


def as_batch(batch: Any) -> Any:
    """Return a batch as an :class:`fluxsr.data.SRBatch`, or, without HR images, as an :class:`fluxsr.data.LRBatch`.

    Args:
        batch: One of these already, a dictionary with ``lr_image`` and ``hr_image`` (and ``hr_latents``, ``noise``,
            ``pair_rows``: see :class:`fluxsr.data.SRBatch`), a pair ``(lr_image, hr_image)``, or, for prediction, ``lr_image``
            alone. Images are ``(B, 3, H, W)`` in ``[0, 1]``.

    Raises:
        ValueError: If it is something else, saying what a batch must be.
    """
    if isinstance(batch, SRBatch | LRBatch):
        return batch
    if isinstance(batch, Mapping):
        given = dict(batch)
    elif isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(one, Tensor) for one in batch):
        given = {"lr_image": batch[0], "hr_image": batch[1]}
    elif isinstance(batch, Tensor):
        given = {"lr_image": batch}
    else:
        raise ValueError(_wanted(f"got a {type(batch).__name__}"))
    lr_image, hr_image = given.get("lr_image"), given.get("hr_image")
    if not isinstance(lr_image, Tensor):
        raise ValueError(_wanted(f"got the keys {', '.join(map(str, given))}"))
    index = given.get("index", torch.arange(len(lr_image)))
    if hr_image is None:
        return LRBatch(lr_image, index, list(given.get("paths", [])))
    shapes = f"lr_image {tuple(lr_image.shape)} and hr_image {tuple(hr_image.shape)}"
    if lr_image.ndim != 4 or hr_image.ndim != 4 or hr_image.shape[-1] < lr_image.shape[-1]:
        raise ValueError(_wanted(f"got {shapes}; the LR image comes first"))
    if any(not low or high % low for high, low in zip(hr_image.shape[-2:], lr_image.shape[-2:], strict=True)):
        raise ValueError(_wanted(f"got {shapes}; the HR sides must be multiples of the LR sides"))
    return SRBatch(hr_image, lr_image, index, given.get("hr_latents"), given.get("noise"), given.get("pair_rows"))


def latents_of(
    batch: SRBatch, autoencoder: Autoencoder, with_lr: bool, generator_of_row: Callable[[int], torch.Generator]
) -> LatentPair:
    """Return a batch's latents; what a row does not bring (HR latents, noise) is made here, noise by the row's generator.

    HR images are encoded without gradient, in the frozen encoder's space, where the teacher's own latents are.
    """
    encode_target = autoencoder.encode_target if isinstance(autoencoder, LatentAutoencoder) else autoencoder.encode
    with torch.no_grad():
        known = None if batch.hr_latents is None else batch.hr_latents.float()
        hr = _completed(known, batch, lambda rows: encode_target(_rows_of(batch.hr_image, rows)))
    lr = autoencoder.encode(enlarge(batch.lr_image, batch.hr_image.shape[-2:])) if with_lr else None

    def draw(rows: Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(hr.shape[1:], generator=generator_of_row(row)) for row in rows])

    noise = _completed(batch.noise, batch, draw)
    return LatentPair(hr, lr, noise.to(hr.device, hr.dtype, non_blocking=True), batch.hr_image)


def enlarge(image: Tensor, size: Iterable[int]) -> Tensor:
    """Resize to ``size`` (height, width): bicubic, clamped to ``[0, 1]``; where restoration starts, and its baseline."""
    return interpolate(image, size=tuple(size), mode="bicubic", align_corners=False).clamp(0, 1)


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a CPU generator that depends on the seed, the step and what it is for, and on nothing else.

    Every process draws for the *global* batch from it and takes its own rows, so one global batch has the same times and
    noise on one process and on eight.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _completed(known: Tensor | None, batch: SRBatch, make: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Return a tensor of all rows of a batch, of which its ``pair_rows`` (``None``: all) are known and the others are made."""
    count, rows = len(batch.hr_image), getattr(batch, "pair_rows", None)  # a batch of one's own may lack them
    if known is None:
        return make(range(count))
    if rows is None:
        return known
    missing = [row for row in range(count) if row not in rows]
    made = make(missing).to(known)
    # Row by row and not by an index tensor, which would make a GPU wait for the CPU.
    found = dict(zip((*rows, *missing), (*known, *made), strict=True))
    return torch.stack([found[row] for row in range(count)])


def _rows_of(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    return tensor if len(rows) == len(tensor) else torch.stack([tensor[row] for row in rows])


def _wanted(got: str) -> str:
    return (
        "a batch must be a dictionary with lr_image and hr_image, or the pair (lr_image, hr_image), of (B, 3, H, W) images in "
        f"[0, 1]: {got}"
    )
