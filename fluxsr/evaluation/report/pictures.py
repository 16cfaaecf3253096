"""Chooses the pictures of the report: the images that differ most, and where to look in them."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from fluxsr.evaluation.document import Results
from fluxsr.evaluation.html import data_uri, encoded
from fluxsr.evaluation.metrics import METRICS, row_of
from fluxsr.images import read_image

CROP = 128  # pixels a side
WHOLE = 360
HR = "HR"


def judge(results: Results) -> str | None:
    """Return the metric that sorts the images: the first that compares how they look, else how close they are, else any."""
    there = results["metrics"]
    measured = [name for name in (*METRICS, *there) if name in there and not row_of(name).on_sets]
    looks = [name for name in measured if row_of(name).family == "perception" and row_of(name).needs_reference]
    close = [name for name in measured if row_of(name).family == "fidelity"]
    return next(iter([*looks, *close, *measured]), None)


def focus(results: Results, system: str | None = None) -> str:
    """Return the system whose worst and best images are shown: the one that was asked for, or the first beside bicubic."""
    names = list(results["systems"])
    first = next((name for name in names if name != "bicubic"), names[0])
    return system if system is not None and system in names else first


def chosen(results: Results, system: str, count: int) -> list[tuple[str, str]]:
    """Return the ``count`` worst and the ``count`` best images of a system, each with what it is; all where there are fewer."""
    metric, images = judge(results), results["systems"][system]["images"]
    if metric is None:
        return []
    lower = results["metrics"][metric]["lower_is_better"]
    worst_first = sorted(images, key=lambda name: images[name][metric], reverse=lower)
    best = worst_first[count:][::-1][:count]
    return [(name, "worst") for name in worst_first[:count]] + [(name, "best") for name in best]


def load_pictures(results: Results, name: str) -> dict[str, Tensor]:
    """Return the pictures of an image that are still there, by system, HR first; ``(3, H, W)`` of one size."""
    height, width = results["images"][name]["size"]
    places = {HR: results["images"][name]["hr"]}
    places |= {system: entry["files"].get(name) for system, entry in results["systems"].items()}
    there = {system: read_image(place) for system, place in places.items() if place and Path(place).is_file()}
    found = {system: picture[:, :height, :width] for system, picture in there.items()}
    return {system: picture for system, picture in found.items() if picture.shape[-2:] == (height, width)}


def where_to_look(pictures: dict[str, Tensor], system: str) -> tuple[int, int, int]:
    """Return top, left and side of the square in which the system is furthest from HR (without HR: richest in detail)."""
    picture = pictures[system].mean(dim=0)
    side = min(CROP, *picture.shape)
    if HR in pictures:
        error = (picture - pictures[HR].mean(dim=0)).square()
    else:
        error = F.pad((picture[1:, 1:] - picture[:-1, :-1]).square(), (0, 1, 0, 1))
    step = max(1, side // 4)
    local = F.avg_pool2d(error[None, None], side, stride=step)[0, 0]
    row, column = np.unravel_index(int(local.argmax()), local.shape)
    return int(row) * step, int(column) * step, side


def figure(results: Results, name: str, kind: str, system: str) -> str:
    """Return one image as HTML: the whole of it, and a crop of two systems under a slider; empty without pictures."""
    pictures = load_pictures(results, name)
    if system not in pictures or len(pictures) < 2:
        return ""
    top, left, side = where_to_look(pictures, system)
    height, width = pictures[system].shape[-2:]
    shares = {"left": left / width, "top": top / height, "width": side / width, "height": side / height}
    frame = ";".join(f"{edge}:{share:.2%}" for edge, share in shares.items())
    second = HR if HR in pictures else next(other for other in pictures if other != system)
    crops = []
    for other, picture in pictures.items():
        role = {system: "left", second: "right"}.get(other, "")
        uri = data_uri(encoded(picture[:, top : top + side, left : left + side]))
        alt = escape(f"{name}, {other}")
        crops.append(f'<img data-system="{escape(other)}" class="{role}" alt="{alt}" src="{uri}">')
    values = results["systems"][system]["images"][name].items()
    numbers = ", ".join(f"{metric} {value:.{results['metrics'][metric]['decimals']}f}" for metric, value in values)
    shrink = min(1.0, WHOLE / max(height, width))
    small = F.interpolate(pictures[second][None], scale_factor=shrink, mode="area")[0]
    whole = data_uri(encoded(small, "JPEG"), "JPEG")
    return f"""<figure class="picture"><div class="pair">
<div class="whole"><img alt="{escape(name)}" src="{whole}"><span style="{frame}"></span></div>
<div><div class="compare">{"".join(crops)}</div><div class="controls">{_select(pictures, system, "left picture")}
<input type="range" min="0" max="100" value="50" aria-label="where the left picture ends">
{_select(pictures, second, "right picture")}
</div></div></div><figcaption><b>{kind}</b>: {escape(name)}; {escape(system)}: {escape(numbers)}</figcaption></figure>"""


def _select(pictures: dict[str, Tensor], selected: str, label: str) -> str:
    options = "".join(f"<option{' selected' * (name == selected)}>{escape(name)}</option>" for name in pictures)
    return f'<select aria-label="{label}">{options}</select>'
