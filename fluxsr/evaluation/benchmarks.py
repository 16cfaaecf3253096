"""Declares the field's benchmarks: their files, their scale and crop, and where to get them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fluxsr.digest import file_digest
from fluxsr.images.formats import is_picture_name

FULL_REFERENCE = ("psnr", "ssim", "lpips_alex", "dists")
NO_REFERENCE = ("niqe",)
# What the recent papers measure on real photos, with SSIM as their tables have it.
TABLES = ("psnr", "ssim_tables", "lpips_alex", "dists", "niqe")


class Layout(NamedTuple):
    """Where HR and LR files lie below a benchmark's folder, as patterns; empty: there are none."""

    hr: str
    lr: str


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: Name, as ``--benchmark`` takes it.
        title: Title, as papers write it.
        folders: Names of its folder below ``--root``; the root itself may be it, too.
        layouts: Folder layouts that are in circulation.
        images: Number of images.
        scale: Magnification.
        crop: Pixels cut off each side for PSNR and SSIM.
        metrics: Metrics that make sense to compare.
        source: Place where users get it.
        published: Dataset and setting of the published rows that belong beside it, see ``published_results.csv``.
        sha256: Checksum of all its files, by :func:`digest`; ``None``: not known to us, so it can't be checked.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    images: int
    source: str
    scale: int = 4
    crop: int = 0
    metrics: tuple[str, ...] = FULL_REFERENCE
    published: tuple[str, str] | None = None
    sha256: str | None = None


_SELFEXSR = (Layout("*_SRF_4_HR.png", "*_SRF_4_LR.png"), Layout("image_SRF_4/*_HR.png", "image_SRF_4/*_LR.png"))
_BASICSR = Layout("GTmod12/*.png", "LRbicx4/*.png")
_CLASSIC = "SelfExSR (github.com/jbhuang0604/SelfExSR), or BasicSR's links (docs/DatasetPreparation.md)"
_STABLESR = "StableSR's test sets (huggingface.co/datasets/Iceclear/StableSR-TestSets)"
_CROPS = (
    Layout("HR/*.png", "LR/*.png"),
    Layout("test_HR/*.png", "test_LR/*.png"),
    Layout("gt/*.png", "lq/*.png"),
    Layout("GT/*.png", "LQ/*.png"),
)
_LR_ONLY = (Layout("", "*"), Layout("", "LQ/*"), Layout("", "lq/*"))

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "set5",
            "Set5",
            ("Set5_x4", "Set5"),
            (*_SELFEXSR, _BASICSR),
            5,
            _CLASSIC,
            crop=4,
            sha256="69619b495d348d8e91ea57714238f8032f475718de15ffa7ff2956c7cf6bc1dc",
        ),
        Benchmark(
            "set14",
            "Set14",
            ("Set14_x4", "Set14"),
            (*_SELFEXSR, _BASICSR),
            14,
            _CLASSIC,
            crop=4,
            sha256="d9314efda1885dfe345a6dcaeeba9835f400e78150e4b6aaa9959f4f9108a041",
        ),
        Benchmark("bsd100", "BSD100", ("BSD100_x4", "BSD100"), (*_SELFEXSR, _BASICSR), 100, _CLASSIC, crop=4),
        Benchmark("urban100", "Urban100", ("Urban100_x4", "Urban100"), (*_SELFEXSR, _BASICSR), 100, _CLASSIC, crop=4),
        Benchmark(
            "div2k",
            "DIV2K-val, full images",
            ("DIV2K", "DIV2K_val"),
            (
                Layout("DIV2K_valid_HR/*.png", "DIV2K_valid_LR_bicubic/X4/*.png"),
                Layout("DIV2K_valid_HR/*.png", "DIV2K_valid_LR_unknown/X4/*.png"),
                Layout("HR/*.png", "LR/*.png"),
            ),
            100,
            "data.vision.ee.ethz.ch/cvl/DIV2K; FluxSR degrades its HR images by Real-ESRGAN's pipeline and publishes no LR",
            metrics=TABLES,
            published=("DIV2K-val", "full"),
        ),
        Benchmark(
            "div2k_crops",
            "DIV2K-val, 3000 crops 128 to 512",
            ("DIV2K_V2_val", "DIV2K_crops"),
            _CROPS,
            3000,
            _STABLESR,
            metrics=(*TABLES, "fid"),
            published=("DIV2K-val", "crop"),
        ),
        Benchmark(
            "realsr",
            "RealSR, full images",
            ("RealSR", "RealSR(V3)"),
            (
                Layout("*/Test/4/*_HR.png", "*/Test/4/*_LR4.png"),
                Layout("HR/*.png", "LR/*.png"),
            ),
            100,
            "github.com/csjcai/RealSR (V3: Canon and Nikon, Test, 4)",
            metrics=TABLES,
            published=("RealSR", "full"),
        ),
        Benchmark(
            "realsr_crops",
            "RealSR, 100 crops 128 to 512",
            ("RealSRVal_crop128", "RealSR_crops"),
            _CROPS,
            100,
            _STABLESR,
            metrics=(*TABLES, "fid"),
            published=("RealSR", "crop"),
        ),
        Benchmark(
            "realsr10",
            "RealSR, 10 of the 100 crops",
            ("realsr10",),
            _CROPS[:1],
            10,
            "ten pairs in OSEDiff's repository (github.com/cswry/OSEDiff)",
            metrics=TABLES,
            published=("RealSR", "crop"),
            sha256="2e11a029ccdf3a434232c4fb4f337a4c857a68cdc9f4b357ab822753d72762c5",
        ),
        Benchmark(
            "drealsr",
            "DRealSR, full images",
            ("DRealSR",),
            (Layout("Test_x4/test_HR/*.png", "Test_x4/test_LR/*.png"), Layout("HR/*.png", "LR/*.png")),
            93,
            "github.com/xiezw5/Component-Divide-and-Conquer-for-Real-World-Image-Super-Resolution",
            metrics=TABLES,
            published=("DRealSR", "full"),
        ),
        Benchmark(
            "drealsr_crops",
            "DRealSR, 93 crops 128 to 512",
            ("DrealSRVal_crop128", "DRealSR_crops"),
            _CROPS,
            93,
            _STABLESR,
            metrics=(*TABLES, "fid"),
            published=("DRealSR", "crop"),
        ),
        Benchmark(
            "screensr",
            "ScreenSR",
            ("ScreenSR",),
            (*_CROPS, Layout("hr/*.png", "lr/*.png")),
            130,
            "VOSR's links (github.com/cswry/VOSR; huggingface.co/datasets/CSWRY/ScreenSR); screens, photographed",
            metrics=TABLES,
        ),
        Benchmark(
            "div4k50",
            "DIV4K-50, 256 to 4096",
            ("DIV4K-50", "DIV4K50"),
            _CROPS,
            50,
            "4KAgent's links (4kagent.github.io, arXiv 2507.07105)",
            scale=16,
            metrics=TABLES,
        ),
        Benchmark(
            "realset65",
            "RealSet65",
            ("RealSet65",),
            _LR_ONLY,
            65,
            "ResShift's repository (github.com/zsyOAOA/ResShift, testdata/RealSet65)",
            metrics=NO_REFERENCE,
            published=("RealSet65", "full"),
            sha256="8cf6e9b50e7b3917397acc75979aa1afdc083b48d0eda55b13bed607cdfc8c48",
        ),
        Benchmark(
            "reallr200",
            "RealLR200",
            ("RealLR200",),
            _LR_ONLY,
            200,
            "SeeSR's links (github.com/cswry/SeeSR)",
            metrics=NO_REFERENCE,
            published=("RealLR200", "full"),
        ),
        Benchmark(
            "reallq250",
            "RealLQ250",
            ("RealLQ250",),
            _LR_ONLY,
            250,
            "DreamClear's links (github.com/shallowdream204/DreamClear)",
            metrics=NO_REFERENCE,
            published=("RealLQ250", "full"),
        ),
        Benchmark(
            "realphoto60",
            "RealPhoto60",
            ("RealPhoto60",),
            _LR_ONLY,
            60,
            "SUPIR's links (github.com/Fanghua-Yu/SUPIR)",
            scale=2,
            metrics=NO_REFERENCE,
        ),
    )
}
"""Every benchmark by name: its images and how many, its layout on disk, its protocol and where it comes from."""


def find_benchmark(name: str, root: str | Path | None) -> tuple[Benchmark, str | None, str]:
    """Return a benchmark and the patterns of its HR and LR files below ``root``.

    Args:
        name: A key of :data:`BENCHMARKS`.
        root: The benchmark's own folder, or that of several.

    Raises:
        ValueError: If the name is unknown, or the files aren't there; it says where users get them.
    """
    key = name.lower().replace("-", "_")
    if key not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}: choose {', '.join(BENCHMARKS)}, or give a folder with --hr")
    benchmark = BENCHMARKS[key]
    if root is None:
        raise ValueError(f"give --root, the folder that {benchmark.title} lies in. Get it from: {benchmark.source}")
    for folder in (*(Path(root) / folder for folder in benchmark.folders), Path(root)):
        for layout in benchmark.layouts:
            hr, lr = (folder / pattern if pattern else None for pattern in layout)
            if _images(folder, layout.lr) and (hr is None or _images(folder, layout.hr)):
                return benchmark, None if hr is None else str(hr), str(lr)
    patterns = " or ".join(f"{layout.hr} with {layout.lr}" if layout.hr else layout.lr for layout in benchmark.layouts)
    raise ValueError(
        f"{benchmark.title} is not in {root}: looked there and in {', '.join(benchmark.folders)} for {patterns}. "
        f"Get it from: {benchmark.source}"
    )


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of a set of files, whatever they are called: of the sorted SHA-256 of each, in hexadecimal."""
    each = sorted(map(file_digest, paths))
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def _images(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.glob(pattern)) if is_picture_name(path)]
