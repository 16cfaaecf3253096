"""Converts batches of the user's own data, dictionaries and tuples, to what the module works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fluxsr.data import LRBatch, SRBatch


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


def completed(
    known: Tensor | None, rows: Sequence[int] | None, count: int, make: Callable[[list[int]], Tensor]
) -> Tensor:
    """Return a tensor of all rows of a batch, of which some are known and the others are made.

    Args:
        known: Values that the batch contains, ``(K, ...)``; ``None``: nothing.
        rows: Numbers of these rows, ascending; ``None``: all.
        count: Rows of the batch.
        make: Returns the given rows ``(len(rows), ...)``; called once, if any are missing.
    """
    if known is None:
        return make(list(range(count)))
    if rows is None:
        return known
    missing = [row for row in range(count) if row not in rows]
    made = make(missing).to(known)
    # Row by row and not by an index tensor, which would make a GPU wait for the CPU.
    found = dict(zip((*rows, *missing), (*known, *made), strict=True))
    return torch.stack([found[row] for row in range(count)])


def rows_of(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Return rows of a tensor, the tensor itself where these are all of them."""
    return tensor if len(rows) == len(tensor) else torch.stack([tensor[row] for row in rows])


def _wanted(got: str) -> str:
    return (
        "a batch must be a dictionary with lr_image and hr_image, or the pair (lr_image, hr_image), of (B, 3, H, W) images in "
        f"[0, 1]: {got}"
    )
