"""Hashes of photos, by which a test shows that no photo that models are measured on was trained on.

    python -m benchmarks.photo_hashes PHOTOS fluxsr/assets/training_photos.csv

Beside SHA-256 of the file stands a difference hash of 16x16 bits, which survives another size, another file format and
moderate damage: bit (i, j) says whether a 17x16 thumbnail in gray gets brighter from column j to column j + 1 of row i.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from itertools import pairwise
from pathlib import Path

from PIL import Image

from fluxsr.atomic import write_text
from fluxsr.images import list_images

SIDE = 16


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def difference_hash(image: Image.Image) -> int:
    """Return the 256 bits as one number."""
    thumbnail = image.convert("RGB").convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    gray = thumbnail.tobytes()
    rows = [gray[start : start + SIDE + 1] for start in range(0, len(gray), SIDE + 1)]
    return int("".join(str(int(b > a)) for row in rows for a, b in pairwise(row)), 2)


def distance(one: int, other: int) -> int:
    """Return how many of the 256 bits differ; about 128 for photos that have nothing in common."""
    return (one ^ other).bit_count()


if __name__ == "__main__":
    folder, output = sys.argv[1:]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["name", "sha256", "difference_hash"])
    for photo in list_images(folder):
        with Image.open(photo) as image:
            writer.writerow([photo.name, file_hash(photo), f"{difference_hash(image):064x}"])
    write_text(Path(output), table.getvalue())
