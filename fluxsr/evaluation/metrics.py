"""The metrics by name. Each takes 8-bit images as ``(1, 3, H, W)`` in ``[0, 1]`` and gives one number for one image.

A metric is one row of :data:`METRICS`. What is not in the table goes to pyiqa by its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.losses.functional import luma

Score = Callable[[Tensor, Tensor], Tensor]


class Settings(NamedTuple):
    """What a protocol says of the metrics.

    Attributes:
        crop: pixels cut off each side for PSNR and SSIM; other metrics see the whole image.
        period: of the artefact meter, in pixels.
        weights: file or folder of measured weights; ``None``: ``FLUXSR_WEIGHTS``, torch hub's cache, a download.
        device: where networks run.
    """

    crop: int = 0
    period: int = 16
    weights: str | Path | None = None
    device: str = "cpu"


class Metric(NamedTuple):
    """A metric ready to be used.

    Attributes:
        name: as the user spelt it, and as results are filed.
        score: ``score(sr_image, hr_image)``; the second is ``None`` without reference.
        lower_is_better: which way it points.
        needs_reference: whether there must be an HR image.
        decimals: how many are printed.
    """

    name: str
    score: Callable[[Tensor, Tensor | None], float]
    lower_is_better: bool
    needs_reference: bool
    decimals: int


class Row(NamedTuple):
    """Everything that is known about a metric by its name: a row of :data:`METRICS`, and the only place for it.

    Attributes:
        load: ``load(settings)`` returns ``score(sr_image, hr_image)``. ``None``: pyiqa measures it, or, on the whole set,
            :mod:`fluxsr.evaluation.fid`.
        family: What it judges; the report plots perception against fidelity.
        lower_is_better: Which way it points.
        needs_reference: Whether there must be an HR image.
        decimals: How many are printed.
        column: Column of the published tables that means the same.
        pyiqa: Its name in pyiqa, where that has the metric, too.
        note: What a reader must know before comparing.
        on_sets: Whether it is one number for a whole set of images.
    """

    load: Callable[[Settings], Callable[..., Any]] | None
    family: Literal["fidelity", "perception", "artefacts"] = "perception"
    lower_is_better: bool = True
    needs_reference: bool = True
    decimals: int = 4
    column: str = ""
    pyiqa: str = ""
    note: str = ""
    on_sets: bool = False


def psnr(sr_image: Tensor, hr_image: Tensor) -> Tensor:
    """Return the PSNR in dB by torchmetrics, of any channels in ``[0, 1]``; infinite for equal images."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(sr_image, hr_image, data_range=1.0)


def ssim(sr_image: Tensor, hr_image: Tensor) -> Tensor:
    """Return SSIM by torchmetrics: a Gaussian window (11 pixels, sigma 1.5), mirrored at the border."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    # In single precision: torchmetrics' window is a two-dimensional convolution, eight times slower in double.
    value = structural_similarity_index_measure(sr_image.float(), hr_image.float(), data_range=1.0)
    return value[0] if isinstance(value, tuple) else value


def ssim_tables(sr_image: Tensor, hr_image: Tensor) -> Tensor:
    """Return SSIM as the tables of recent papers have it (those made with pyiqa), of RGB images in ``[0, 1]``.

    Three things differ from :func:`ssim` on the luma: the luma is rounded to whole levels, only windows that lie inside the
    image count, and where structures oppose each other their similarity is taken for 0.
    """
    x, y = ((luma(image.double()) * 255).round() for image in (sr_image, hr_image))
    offsets = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    line = line / line.sum()

    def smooth(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    x_mean, y_mean = smooth(x), smooth(y)
    variances = smooth(x.square()) - x_mean.square() + smooth(y.square()) - y_mean.square()
    covariance = smooth(x * y) - x_mean * y_mean
    stabiliser, stabiliser2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    means = (2 * x_mean * y_mean + stabiliser) / (x_mean.square() + y_mean.square() + stabiliser)
    return (means * ((2 * covariance + stabiliser2) / (variances + stabiliser2)).clamp(min=0)).mean()


def _cropped(score: Score, convert: Callable[[Tensor], Tensor], settings: Settings) -> Score:
    def on_inner(sr_image: Tensor, hr_image: Tensor) -> Tensor:
        crop = settings.crop
        if min(sr_image.shape[-2:]) <= 2 * crop + 11:
            raise ValueError(
                f"{sr_image.shape[-2]}x{sr_image.shape[-1]} pixels are too few to cut {crop} off each side"
            )
        inner = (..., slice(crop, sr_image.shape[-2] - crop), slice(crop, sr_image.shape[-1] - crop))
        return score(convert(sr_image[inner].double()), convert(hr_image[inner].double()))

    return on_inner


def _unchanged(image: Tensor) -> Tensor:
    return image


def _lpips(net: str, settings: Settings) -> Score:
    from fluxsr.losses import LPIPSLoss

    # The small network of our own ships with the package.
    return LPIPSLoss(net, None if net == "nano" else settings.weights).to(settings.device)


def _dists(settings: Settings) -> Score:
    from fluxsr.losses import DISTSLoss

    return DISTSLoss(settings.weights, heads=settings.weights).to(settings.device)


def _niqe(settings: Settings) -> Callable[..., Tensor]:
    from fluxsr.evaluation.niqe import load_pristine, niqe

    pristine = load_pristine(settings.weights)
    return lambda sr_image, hr_image: niqe(sr_image, pristine)


def _artefacts(settings: Settings) -> Callable[..., Tensor]:
    from fluxsr.losses import patch_artefact_energy

    return lambda sr_image, hr_image: patch_artefact_energy(sr_image, settings.period)


def _higher(column: str) -> Row:
    """Return the row of a metric without reference that pyiqa measures."""
    return Row(None, lower_is_better=False, needs_reference=False, column=column)


_NOT_THE_TABLES = "ssim is torchmetrics', up to 0.01 from the papers' own: measure ssim_tables to compare"
METRICS = {
    "psnr": Row(partial(_cropped, psnr, luma), "fidelity", False, decimals=2, column="psnr"),
    "psnr_rgb": Row(partial(_cropped, psnr, _unchanged), "fidelity", False, decimals=2),
    "ssim_tables": Row(partial(_cropped, ssim_tables, _unchanged), "fidelity", False, column="ssim", pyiqa="ssim"),
    "ssim": Row(partial(_cropped, ssim, luma), "fidelity", False, column="ssim", note=_NOT_THE_TABLES),
    "ssim_rgb": Row(partial(_cropped, ssim, _unchanged), "fidelity", False),
    "lpips_alex": Row(partial(_lpips, "alex"), column="lpips", pyiqa="lpips"),
    "lpips_vgg": Row(partial(_lpips, "vgg")),
    "lpips_squeeze": Row(partial(_lpips, "squeeze")),
    "lpips_nano": Row(partial(_lpips, "nano")),
    "dists": Row(_dists, column="dists", pyiqa="dists"),
    "niqe": Row(_niqe, needs_reference=False, column="niqe", pyiqa="niqe"),
    "musiq": _higher("musiq"),
    "maniqa": _higher("maniqa"),
    "maniqa-pipal": _higher("maniqa"),
    "clipiqa": _higher("clipiqa"),
    "topiq_nr": _higher("topiq"),
    "qalign": _higher("qalign"),
    "fid": Row(None, decimals=2, column="fid", on_sets=True),
    "artefact_db": Row(_artefacts, "artefacts", needs_reference=False, decimals=2),
}
"""Every metric by name: the library's own, those of pyiqa that papers print, and FID, which is measured on sets."""


def facts_of(metric: Row | Metric) -> dict[str, Any]:
    """Return what a reader of the results has to know."""
    return {name: getattr(metric, name) for name in ("lower_is_better", "needs_reference", "decimals")}


def row_of(name: str) -> Row:
    """Return what is known about a metric; of one that only pyiqa knows, that it judges perception."""
    return METRICS.get(name.removeprefix("pyiqa:") if name not in METRICS else name, Row(None))


def metrics_of_column(column: str) -> list[str]:
    """Return the metrics that mean a column of the published tables, the nearest first; pyiqa's own version comes second."""
    names = [name for name, row in METRICS.items() if row.column == column]
    theirs = [f"pyiqa:{METRICS[name].pyiqa or name}" for name in names if METRICS[name].pyiqa or not METRICS[name].load]
    return [*names[:1], *theirs, *names[1:]]


def load_metric(name: str, settings: Settings | None = None) -> Metric:
    """Make a metric ready.

    Args:
        name: a key of :data:`METRICS`, or a metric of pyiqa, by its name there or with ``pyiqa:`` before it, which also gets
            pyiqa's own version of a metric that is in the table. pyiqa's licence forbids commercial use.
        settings: what the protocol says.

    Raises:
        ValueError: if nobody knows the metric, or pyiqa isn't there to be asked.
        FileNotFoundError: if its weights are nowhere; the message lists the places.
    """
    settings = settings or Settings()
    row = METRICS.get(name)
    if row is not None and row.on_sets:
        raise ValueError(f"{name} is one number for a whole set of images: measure it with evaluate()")
    if row is None or row.load is None:
        return _from_pyiqa(name, settings)
    score = row.load(settings)

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        return float(score(sr_image.to(settings.device), None if hr_image is None else hr_image.to(settings.device)))

    return Metric(name, measure, row.lower_is_better, row.needs_reference, row.decimals)


def load_metrics(names: Iterable[str], settings: Settings | None = None) -> list[Metric]:
    """Make several metrics ready, and say of all that lack something at once.

    Args:
        names: as :func:`load_metric` takes them; each is loaded once.
        settings: what the protocol says.

    Raises:
        ValueError: naming every metric that can't be measured with what it wants, and those that can.
    """
    ready, wanting = [], []
    for name in dict.fromkeys(names):
        try:
            ready.append(load_metric(name, settings))
        except (ValueError, FileNotFoundError) as error:
            wanting.append(f"{name}: {error}")
    if wanting:
        others = (
            ", or leave out what is missing: --metrics " + ",".join(metric.name for metric in ready) if ready else ""
        )
        raise ValueError(
            f"nothing was measured: {len(wanting)} of the metrics can't be.\n"
            + "\n".join(wanting)
            + f"\nGet what they want{others}"
        )
    return ready


def _own() -> list[str]:
    return [name for name, row in METRICS.items() if row.load is not None or row.on_sets]


def _from_pyiqa(name: str, settings: Settings) -> Metric:
    try:
        import pyiqa
    except ImportError:
        raise ValueError(
            f"metric {name!r} is none of {', '.join(_own())}; further ones come through pyiqa, which is not "
            "installed: pip install 'fluxsr[metrics]' (its licence is non-commercial)"
        ) from None
    theirs = name.removeprefix("pyiqa:")
    if theirs not in pyiqa.list_models():
        raise ValueError(f"pyiqa has no metric {theirs!r}, and ours are {', '.join(_own())}")
    network = pyiqa.create_metric(theirs, device=torch.device(settings.device))
    needs_reference = network.metric_mode == "FR"

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        images = (sr_image, hr_image) if needs_reference else (sr_image,)
        return float(network(*(image.to(settings.device) for image in images if image is not None)))

    return Metric(name, measure, bool(network.lower_better), needs_reference, 4)
