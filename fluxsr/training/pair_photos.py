"""Finds the photos that can be paired, by their content, and cuts them to their size."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.data.pair_store import PairKey
from fluxsr.images import list_images, read_pixels, read_size
from fluxsr.images.listing import named
from fluxsr.processes import ALONE, Processes

logger = logging.getLogger(__name__)


def find_photos(
    folder: Path, num: int, size: int, known: Collection[PairKey], processes: Processes = ALONE
) -> dict[str, Path]:
    """Return the first photos that can be paired, in the order of their names, by the digests of their bytes.

    Photos that can't be read, and copies, are left out with a warning that names them.

    Args:
        folder: Folder of photos.
        num: Number of photos, at most.
        size: Side of the images in pixels.
        known: Digests of photos that have been paired, and so can be read.
        processes: The processes that share the reading.

    Raises:
        ValueError: If no photo can be used, one is smaller than ``size``, or the processes see different photos.
    """
    paths = list_images(folder)
    listing = [(str(path.relative_to(folder)), path.stat().st_size) for path in paths]
    if any(other != listing for other in processes.gather(listing)):
        raise ValueError(f"the processes found different photos in {folder}: give all of them the same")
    found: dict[str, Path] = {}
    left_out: list[str] = []
    looked_at = 0
    while looked_at < len(paths) and len(found) < num:
        numbers = range(looked_at, min(looked_at + num - len(found), len(paths)))
        mine = {number: _look_at(paths[number], size, known) for number in processes.share(numbers)}
        looks = {number: look for part in processes.gather(mine) for number, look in part.items()}
        small = [f"{paths[number]} ({looks[number].small})" for number in numbers if looks[number].small]
        if small:
            raise ValueError(
                f"{len(small)} of {len(numbers)} photos are smaller than {size}x{size}, and enlarged ones would teach blur: "
                f"{named(small)}. Remove them, or make smaller pairs (size)"
            )
        for number in numbers:
            fault, digest = looks[number].fault, looks[number].digest
            if not fault and digest in found:
                fault = f"{paths[number]} is a copy of {found[digest]}"
            if fault:
                left_out.append(fault)
            else:
                found[digest] = paths[number]
        looked_at = numbers.stop
    if not found:
        raise ValueError(f"none of the {len(paths)} photos in {folder} can be used: {named(left_out)}")
    if left_out and processes.first:
        logger.warning("left out %d of %d photos: %s", len(left_out), looked_at, named(left_out))
    return found


class _Look(NamedTuple):
    """What is found in a photo: the digest of its bytes, or why it can't be used, or its size where that is too small."""

    digest: str = ""
    fault: str = ""
    small: str = ""


def _look_at(path: Path, size: int, known: Collection[PairKey]) -> _Look:
    try:
        height, width = read_size(path)
        if min(height, width) < size:
            return _Look(small=f"{width}x{height}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in known:
            read_pixels(path)  # most damage is behind the header
    except ValueError as error:
        return _Look(fault=str(error))
    return _Look(digest)


def middle_square(image: Tensor, size: int) -> Tensor:
    """Cut the middle square of ``(3, H, W)`` and reduce it to ``size`` (antialiased bicubic)."""
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    square = image[None, :, top : top + side, left : left + side]
    return interpolate(square, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)[0]
