"""Computes FID with pyiqa, on sets that are large enough for it to mean something."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

# Below, the estimate of a 2048 x 2048 covariance says more about the number of images than about them.
SMALLEST_SET = 50


def check_set(images: int) -> None:
    """Check that FID can be measured on so many images.

    Raises:
        ValueError: If they are fewer than 50, or pyiqa is not installed.
    """
    if images < SMALLEST_SET:
        raise ValueError(
            f"fid on {images} images would say more about their number than about them: it needs at least {SMALLEST_SET}"
        )
    try:
        import pyiqa  # noqa: F401
    except ImportError:
        raise ValueError(
            "fid comes through pyiqa: pip install 'fluxsr[metrics]' (its license is non-commercial)"
        ) from None


def fid(results: Iterable[Path], references: Iterable[Path], device: str = "cpu") -> float:
    """Return the Frechet inception distance between two sets of image files, each as :func:`check_set` wants it."""
    import pyiqa

    with TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("results", "references")]
        for place, paths in zip(places, (results, references), strict=True):
            place.mkdir()
            for index, path in enumerate(paths):
                (place / f"{index:06}{path.suffix}").symlink_to(path.resolve())
        return float(pyiqa.create_metric("fid", device=device)(*map(str, places), verbose=False))
