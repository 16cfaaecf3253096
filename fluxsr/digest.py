"""Computes digests, which distinguish a file from another of the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 2**20  # bytes


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file's contents in hexadecimal; however large it is, little memory is taken."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
