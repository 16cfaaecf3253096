"""Computes the metrics by name. Each takes 8-bit images as ``(1, 3, H, W)`` in ``[0, 1]`` and gives one number for one image.

A metric is one row of :data:`METRICS`. What is not in the table goes to pyiqa by its own name; ``NAME=module:function`` is a
metric of one's own.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.digest import file_digest
from fluxsr.evaluation.fidelity import SSIM_SMALLEST, WINDOW, consistency, psnr, ssim, ssim_tables
from fluxsr.evaluation.niqe import BLOCK
from fluxsr.losses.functional import luma

if TYPE_CHECKING:
    from fluxsr.evaluation.testset import Degrade

Score = Callable[..., Any]

# Below, FID's estimate of a 2048 x 2048 covariance says more about the number of images than about them.
SMALLEST_FID_SET = 50


class Settings(NamedTuple):
    """The settings of the metrics in a protocol.

    Attributes:
        crop: Pixels cut off each side for PSNR and SSIM; other metrics see the whole image.
        period: Period of the artefact meter, in pixels.
        weights: File or folder of measured weights; ``None``: ``FLUXSR_WEIGHTS``, torch hub's cache, a download.
        device: Device that networks run on.
        degrade: Degradation that made the LR images, for ``consistency``; ``None``: bicubic, as for those of unknown origin.
    """

    crop: int = 0
    period: int = 16
    weights: str | Path | None = None
    device: str = "cpu"
    degrade: Degrade | None = None


def _any_size(height: int, width: int, settings: Settings) -> bool:
    return True


class Metric(NamedTuple):
    """Everything that is known about a metric: a row of :data:`METRICS`, which :func:`load_metric` makes ready.

    Attributes:
        load: ``load(settings)`` returns ``score``. ``None``: pyiqa measures it, or it is one number for a whole set.
        family: Quality that it judges; the report plots perception against fidelity.
        lower_is_better: Whether a lower value is better.
        needs_reference: Whether there must be an HR image.
        decimals: Number of decimals to print.
        column: Column of the published tables that means the same.
        pyiqa: Its name in pyiqa, where that has the metric, too.
        note: Caveat that a reader must know before comparing.
        source: Who measures it: ``fluxsr``, ``pyiqa``, or ``module:function`` with a checksum of the module's file.
        on_sets: Whether it is one number for a whole set of images: FID, or what is computed of the means below.
        needs_lr: Whether there must be an LR image.
        parts: Metrics of whose means it is computed.
        combine: Maker of its value from those means, by name.
        fits: ``fits(height, width, settings)``: whether an image is large enough.
        name: Name as the user spelt it, and as results are filed; of one that is ready.
        score: ``score(sr_image, hr_image)``; the second is ``None`` without reference, and the LR image where that is needed.
    """

    load: Callable[[Settings], Score] | None
    family: Literal["fidelity", "perception", "artefacts"] = "perception"
    lower_is_better: bool = True
    needs_reference: bool = True
    decimals: int = 4
    column: str = ""
    pyiqa: str = ""
    note: str = ""
    source: str = "fluxsr"
    on_sets: bool = False
    needs_lr: bool = False
    parts: tuple[str, ...] = ()
    combine: Callable[[Mapping[str, float]], float] | None = None
    fits: Callable[[int, int, Settings], bool] = _any_size
    name: str = ""
    score: Score = float


def _cropped(score: Score, convert: Callable[[Tensor], Tensor], settings: Settings) -> Score:
    """Return a score of what is left when the crop is cut off each side, in double precision."""

    def inner(image: Tensor) -> Tensor:
        crop, (height, width) = settings.crop, image.shape[-2:]
        return convert(image[..., crop : height - crop, crop : width - crop].double())

    return lambda sr_image, hr_image: score(inner(sr_image), inner(hr_image))


def _has_inner(smallest: int, height: int, width: int, settings: Settings) -> bool:
    return min(height, width) - 2 * settings.crop >= smallest


def _lpips(net: str, settings: Settings) -> Score:
    from fluxsr.losses import LPIPSLoss

    # The small network of our own ships with the package.
    return LPIPSLoss(net, None if net == "nano" else settings.weights).to(settings.device)


def _dists(settings: Settings) -> Score:
    from fluxsr.losses import DISTSLoss

    return DISTSLoss(settings.weights, heads=settings.weights).to(settings.device)


def _niqe(settings: Settings) -> Score:
    from fluxsr.evaluation.niqe import load_pristine, niqe

    pristine = load_pristine(settings.weights)
    return lambda sr_image, hr_image: niqe(sr_image, pristine)


def _artefacts(settings: Settings) -> Score:
    from fluxsr.losses import patch_artefact_energy

    return lambda sr_image, hr_image: patch_artefact_energy(sr_image, settings.period)


def _consistency(which: int, settings: Settings) -> Score:
    # On the CPU, as the LR images were made: a degradation draws other numbers elsewhere.
    return lambda sr_image, lr_image: consistency(sr_image.cpu(), lr_image.cpu(), settings.degrade)[which]


# A metric without reference that pyiqa measures.
_blind = partial(Metric, None, lower_is_better=False, needs_reference=False, source="pyiqa")


def _ntire(values: Mapping[str, float]) -> float:
    """Return the perceptual score of NTIRE's challenges of 2025 and 2026: six metrics on a scale of about 1 each."""
    full = (1 - values["lpips_alex"]) + (1 - values["dists"])
    blind = values["clipiqa"] + values["maniqa"] + values["musiq"] / 100
    return full + blind + max(0.0, (10 - values["niqe"]) / 10)


_MANIQA = (
    "papers print two networks under the one name MANIQA, pyiqa's maniqa (trained on KonIQ) and maniqa-pipal (on PIPAL), "
    "whose values don't compare: look into a paper's code before comparing"
)
_NOT_THE_TABLES = "ssim is torchmetrics', up to 0.01 from the papers' own: measure ssim_tables to compare"
_PIXELS = partial(_has_inner, 1)
_SIDES = partial(_has_inner, SSIM_SMALLEST)
METRICS = {
    "psnr": Metric(partial(_cropped, psnr, luma), "fidelity", False, decimals=2, column="psnr", fits=_PIXELS),
    "psnr_rgb": Metric(partial(_cropped, psnr, Tensor.contiguous), "fidelity", False, decimals=2, fits=_PIXELS),
    "ssim_tables": Metric(
        partial(_cropped, ssim_tables, Tensor.contiguous),
        "fidelity",
        False,
        column="ssim",
        pyiqa="ssim",
        fits=partial(_has_inner, WINDOW),
    ),
    "ssim": Metric(partial(_cropped, ssim, luma), "fidelity", False, column="ssim", note=_NOT_THE_TABLES, fits=_SIDES),
    "ssim_rgb": Metric(partial(_cropped, ssim, Tensor.contiguous), "fidelity", False, fits=_SIDES),
    "lpips_alex": Metric(partial(_lpips, "alex"), column="lpips", pyiqa="lpips"),
    "lpips_vgg": Metric(partial(_lpips, "vgg")),
    "lpips_squeeze": Metric(partial(_lpips, "squeeze")),
    "lpips_nano": Metric(partial(_lpips, "nano")),
    "dists": Metric(_dists, column="dists", pyiqa="dists"),
    "niqe": Metric(
        _niqe,
        needs_reference=False,
        column="niqe",
        pyiqa="niqe",
        fits=lambda height, width, settings: (height // BLOCK) * (width // BLOCK) >= 2,
    ),
    "musiq": _blind(column="musiq"),
    "maniqa": _blind(column="maniqa", note=_MANIQA),
    "maniqa-pipal": _blind(column="maniqa", note=_MANIQA),
    "clipiqa": _blind(column="clipiqa"),
    "topiq_nr": _blind(column="topiq"),
    "qalign": _blind(column="qalign"),
    "fid": Metric(None, decimals=2, column="fid", source="pyiqa", on_sets=True),
    "ntire": Metric(
        None,
        lower_is_better=False,
        decimals=3,
        on_sets=True,
        parts=("lpips_alex", "dists", "clipiqa", "maniqa", "musiq", "niqe"),
        combine=_ntire,
    ),
    "consistency": Metric(
        partial(_consistency, 0), "fidelity", False, needs_reference=False, decimals=2, needs_lr=True
    ),
    "consistency_spread": Metric(
        partial(_consistency, 1), "fidelity", needs_reference=False, decimals=2, needs_lr=True
    ),
    "artefact_db": Metric(
        _artefacts,
        "artefacts",
        needs_reference=False,
        decimals=2,
        fits=lambda height, width, settings: min(height, width) >= 8 * settings.period,
    ),
}
"""Every metric by name: the library's own, those of pyiqa that papers print, and what is measured on sets."""


def facts_of(metric: Metric) -> dict[str, Any]:
    """Return what a reader of the results has to know."""
    return {name: getattr(metric, name) for name in ("lower_is_better", "needs_reference", "decimals", "source")}


def row_of(name: str) -> Metric:
    """Return what is known about a metric; of one that only pyiqa knows, that it judges perception."""
    return METRICS.get(name.removeprefix("pyiqa:") if name not in METRICS else name, Metric(None, source="pyiqa"))


def with_parts(names: Iterable[str]) -> list[str]:
    """Return metrics with those that they are computed of before them, and with those that all parts are there of."""
    wanted = [part for name in names for part in (*row_of(name).parts, name)]
    wanted += [name for name, row in METRICS.items() if row.parts and set(row.parts) <= set(wanted)]
    return list(dict.fromkeys(wanted))


def metrics_of_column(column: str) -> list[str]:
    """Return the metrics that mean a column of the published tables, the nearest first; pyiqa's own version comes second."""
    names = [name for name, row in METRICS.items() if row.column == column]
    theirs = [f"pyiqa:{METRICS[name].pyiqa or name}" for name in names if METRICS[name].pyiqa or not METRICS[name].load]
    return [*names[:1], *theirs, *names[1:]]


def load_metric(name: str, settings: Settings | None = None) -> Metric:
    """Make a metric ready.

    Args:
        name: Key of :data:`METRICS`, or ``NAME=module:function``, a metric of your own, or a metric of
            pyiqa by its name there; ``pyiqa:NAME`` is pyiqa's own version of one that is in the table. pyiqa's license
            forbids commercial use.
        settings: Settings of the protocol.

    Raises:
        ValueError: If the metric is unknown, or pyiqa isn't installed.
        FileNotFoundError: If its weights are nowhere; the message lists the places.
    """
    settings = settings or Settings()
    if "=" in name:
        return _own_metric(name, settings)
    row = METRICS.get(name, Metric(None, source="pyiqa"))
    if row.on_sets:
        raise ValueError(f"{name} is one number for a whole set of images: measure it with evaluate()")
    if row.load is None:
        return _from_pyiqa(name, settings)
    score = row.load(settings)

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        height, width = sr_image.shape[-2:]
        if not row.fits(height, width, settings):
            raise ValueError(f"{height}x{width} pixels are too few for {name}")
        return float(score(sr_image.to(settings.device), None if hr_image is None else hr_image.to(settings.device)))

    return row._replace(name=name, score=measure)


def load_metrics(names: Iterable[str], settings: Settings | None = None) -> list[Metric]:
    """Make several metrics ready; a ValueError names all at once that can't be measured, with what they need."""
    ready: list[Metric] = []
    wanting = []
    for name in dict.fromkeys(names):
        try:
            metric = load_metric(name, settings)
            if metric.name in [other.name for other in ready]:
                raise ValueError(f"{metric.name} is a metric already, choose another name")
            ready.append(metric)
        except (ValueError, FileNotFoundError) as error:
            wanting.append(f"{name}: {error}")
    if wanting:
        others = ", or leave out what is missing: --metrics " + ",".join(one.name for one in ready) if ready else ""
        raise ValueError(
            "\n".join([f"nothing was measured: {len(wanting)} of the metrics can't be.", *wanting])
            + f"\nGet what they want{others}"
        )
    return ready


def _own_metric(spec: str, settings: Settings) -> Metric:
    """Load ``NAME=module:function``, a metric of the user's own, from any module that Python can import or the current folder.

    The function is called with images ``(1, 3, H, W)`` on the device that is measured on, and returns one number. It takes one
    image, or two where it needs the reference, and may say ``lower_is_better`` and ``decimals`` as attributes.
    """
    name, _, place = spec.partition("=")
    module_name, _, attribute = place.partition(":")
    if not (name and module_name and attribute):
        raise ValueError(f"a metric of your own is NAME=module:function, got {spec!r}")
    if name in METRICS:
        raise ValueError(f"{spec}: {name} is a metric already, choose another name")
    # As `python -m` does: whoever measures has the module at hand, not installed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
        function: Any = getattr(module, attribute)
        function = function() if isinstance(function, type) else function
    except (ImportError, AttributeError, TypeError) as error:  # a class is constructed without arguments
        raise ValueError(f"{spec}: {error}") from error
    if isinstance(function, nn.Module):
        function = function.to(settings.device).eval()
    if not callable(function):
        raise ValueError(f"{spec}: {attribute} is a {type(function).__name__}, which can't be called")
    called = function.forward if isinstance(function, nn.Module) else function
    parameters = inspect.signature(called).parameters.values()
    images = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)
    if images not in (1, 2):
        raise ValueError(f"{spec}: it must take one image, or two with the reference, and takes {images}")

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        given = [image.to(settings.device) for image in (sr_image, hr_image)[:images] if image is not None]
        try:
            value = function(*given)
        except Exception as error:
            lines = traceback.extract_tb(error.__traceback__)
            within = [f"{line.filename}:{line.lineno}" for line in lines if line.filename == file] or [module_name]
            raise ValueError(f"{within[-1]} raised {type(error).__name__}: {error}") from error
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"it must give one number for an image, got {type(value).__name__} ({error})") from error

    file = getattr(module, "__file__", None)
    return Metric(
        None,
        lower_is_better=bool(getattr(function, "lower_is_better", False)),
        needs_reference=images == 2,
        decimals=int(getattr(function, "decimals", 4)),
        # When the module's file changes, values of an earlier version must be measured again.
        source=f"{place}, {file_digest(file)[:12] if file else 'built in'}",
        name=name,
        score=measure,
    )


def _pyiqa(wanted: str) -> Any:
    """Return the module; where it is not installed, what is wanted of it is said."""
    try:
        import pyiqa
    except ImportError:
        raise ValueError(
            f"{wanted} through pyiqa, which is not installed: pip install 'fluxsr[metrics]' (its license is non-commercial)"
        ) from None
    return pyiqa


def _from_pyiqa(name: str, settings: Settings) -> Metric:
    own = ", ".join(one for one, row in METRICS.items() if row.load is not None or row.on_sets)
    pyiqa = _pyiqa(f"metric {name!r} is none of {own}; further ones come")
    theirs = name.removeprefix("pyiqa:")
    if theirs not in pyiqa.list_models():
        raise ValueError(f"pyiqa has no metric {theirs!r}, and ours are {own}")
    network = pyiqa.create_metric(theirs, device=torch.device(settings.device))
    needs_reference = network.metric_mode == "FR"

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        images = (sr_image, hr_image) if needs_reference else (sr_image,)
        return float(network(*(image.to(settings.device) for image in images if image is not None)))

    lower = bool(network.lower_better)
    return Metric(None, "perception", lower, needs_reference, source="pyiqa", name=name, score=measure)


def check_fid(images: int) -> None:
    """Check that FID can be measured on so many images: a ValueError if they are too few, or pyiqa is not installed."""
    if images < SMALLEST_FID_SET:
        raise ValueError(
            f"fid on {images} images would say more about their number than about them: it needs at least {SMALLEST_FID_SET}"
        )
    _pyiqa("fid comes")


def fid(results: Iterable[Path], references: Iterable[Path], device: str) -> float:
    """Return the Frechet inception distance between two sets of image files, by pyiqa."""
    with TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("results", "references")]
        for place, paths in zip(places, (results, references), strict=True):
            place.mkdir()
            for index, path in enumerate(paths):
                (place / f"{index:06}{path.suffix}").symlink_to(path.resolve())
        return float(_pyiqa("fid comes").create_metric("fid", device=device)(*map(str, places), verbose=False))
