"""The metrics by name. Each takes 8-bit images as ``(1, 3, H, W)`` in ``[0, 1]`` and gives one number for one image.

What is not in the table goes to pyiqa by its own name (``musiq``, ``maniqa``, ``clipiqa``, ``topiq_nr``, ``qalign``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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

    def facts(self) -> dict[str, Any]:
        """Return what a reader of the results has to know."""
        return {
            "lower_is_better": self.lower_is_better,
            "needs_reference": self.needs_reference,
            "decimals": self.decimals,
        }


class Kind(NamedTuple):
    """A row of the table: ``load(settings)`` gives ``score(sr_image, hr_image)``."""

    load: Callable[[Settings], Callable[..., Any]]
    lower_is_better: bool = True
    needs_reference: bool = True
    decimals: int = 4


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


METRICS = {
    "psnr": Kind(partial(_cropped, psnr, luma), lower_is_better=False, decimals=2),
    "psnr_rgb": Kind(partial(_cropped, psnr, _unchanged), lower_is_better=False, decimals=2),
    "ssim": Kind(partial(_cropped, ssim, luma), lower_is_better=False),
    "ssim_rgb": Kind(partial(_cropped, ssim, _unchanged), lower_is_better=False),
    "ssim_tables": Kind(partial(_cropped, ssim_tables, _unchanged), lower_is_better=False),
    "lpips_alex": Kind(partial(_lpips, "alex")),
    "lpips_vgg": Kind(partial(_lpips, "vgg")),
    "lpips_squeeze": Kind(partial(_lpips, "squeeze")),
    "lpips_nano": Kind(partial(_lpips, "nano")),
    "dists": Kind(_dists),
    "niqe": Kind(_niqe, needs_reference=False),
    "artefact_db": Kind(_artefacts, needs_reference=False, decimals=2),
}
"""Every metric of this library by name: how it is made, whether it needs a reference and whether lower is better."""
# Measured on the whole set at once, see :mod:`fluxsr.evaluation.fid`.
SET_METRICS = {"fid": {"lower_is_better": True, "needs_reference": True, "decimals": 2}}


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
    if name not in METRICS:
        return _from_pyiqa(name, settings)
    kind = METRICS[name]
    score = kind.load(settings)

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        return float(score(sr_image.to(settings.device), None if hr_image is None else hr_image.to(settings.device)))

    return Metric(name, measure, kind.lower_is_better, kind.needs_reference, kind.decimals)


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


def _from_pyiqa(name: str, settings: Settings) -> Metric:
    try:
        import pyiqa
    except ImportError:
        raise ValueError(
            f"metric {name!r} is none of {', '.join([*METRICS, *SET_METRICS])}; further ones come through pyiqa, which is not "
            "installed: pip install 'fluxsr[metrics]' (its licence is non-commercial)"
        ) from None
    theirs = name.removeprefix("pyiqa:")
    if theirs not in pyiqa.list_models():
        raise ValueError(f"pyiqa has no metric {theirs!r}, and ours are {', '.join([*METRICS, *SET_METRICS])}")
    network = pyiqa.create_metric(theirs, device=torch.device(settings.device))
    needs_reference = network.metric_mode == "FR"

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        images = (sr_image, hr_image) if needs_reference else (sr_image,)
        return float(network(*(image.to(settings.device) for image in images if image is not None)))

    return Metric(name, measure, bool(network.lower_better), needs_reference, 4)
