"""Reads and writes the file of an evaluation, with its protocol, versions and machine."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fluxsr.atomic import replacing, write_text
from fluxsr.evaluation.metrics import Metric, Settings, facts_of, row_of
from fluxsr.evaluation.testset import TestSet
from fluxsr.images.listing import named
from fluxsr.processes import Processes

FORMAT = 1
PARTS = ("files", "fingerprints", "images", "cost")  # what an entry holds of each image
LIBRARIES = ("torch", "torchvision", "torchmetrics", "numpy", "pillow", "lpips", "pyiqa", "spandrel")
Results = dict[str, Any]


def header(testset: TestSet, settings: Settings, metrics: Sequence[Metric], on_sets: Sequence[str]) -> Results:
    """Return all that is known before anything is measured."""
    from fluxsr import __version__

    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "benchmark": {**testset.facts, "images": len(testset.items)},
        "protocol": {
            "scale": testset.scale,
            "lr": testset.lr,
            "hr_cut_to_multiple_of": testset.scale or 1,
            "luma": "BT.601, 16 to 235 (MATLAB's rgb2ycbcr), not rounded",
            "crop": settings.crop,
            "crop_applies_to": "psnr, ssim",
            "pixels": "8 bit",
            "tf32": "off",
            "artefact_period": settings.period,
        },
        "matched_by": testset.how,
        "metrics": {
            **{metric.name: facts_of(metric) for metric in metrics},
            **{name: facts_of(row_of(name)) for name in on_sets},
        },
        "versions": {"fluxsr": __version__, "python": platform.python_version(), **dict(_installed())},
        "machine": {
            "system": platform.system(),
            "device": torch.cuda.get_device_name()
            if settings.device.startswith("cuda")
            else platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "images": {
            name: {"hr": item.hr and str(item.hr), "lr": item.lr and str(item.lr), "size": list(item.size)}
            for name, item in testset.items.items()
        },
        "systems": {},
    }


def _installed() -> Iterator[tuple[str, str]]:
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            yield library, version(library)


def read_json(path: str | Path, what: str) -> Any:
    """Return what a JSON file holds; ``what`` follows "is no JSON file" in the error of one that is none."""
    try:
        return json.loads(
            Path(path).read_text(encoding="utf-8-sig")
        )  # which is UTF-8, with a mark at its beginning or not
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file{what}") from error


def read_results(path: str | Path) -> Results:
    """Read the JSON file of an evaluation, finished or not: what an interrupted run left beside it counts."""
    found = [results for journal in journals(path) if (results := _read_journal(journal)) is not None]
    for other in found[1:]:
        for name in found[0]["systems"].keys() & other["systems"].keys():
            take_in(found[0]["systems"][name], other["systems"][name])
    if found:
        return found[0]
    results = read_json(path, " of an evaluation: move it, or choose another name")
    if not isinstance(results, dict) or results.get("format") != FORMAT or "systems" not in results:
        raise ValueError(f"{path} is not what `fluxsr evaluate` writes: move it, or choose another name")
    for entry in results["systems"].values():
        for values in (*entry["images"].values(), entry.get("mean", {})):
            values.update({metric: math.inf for metric, value in values.items() if value is None})
        for metric, ends in entry.get("interval", {}).items():
            entry["interval"][metric] = [math.inf if end is None else end for end in ends]
    return results


def write_json(path: str | Path, results: Results) -> None:
    """Write results; JSON has no infinity, so ``null`` stands for it, and a note says so."""
    infinite = [
        f"{metric} of {image} ({name})"
        for name, entry in results["systems"].items()
        for image, values in entry["images"].items()
        for metric, value in values.items()
        if math.isinf(value)
    ]
    note = {"note": f"null is infinity: {named(infinite)}, where a picture equals what it is compared with"}
    text = json.dumps(_without_infinity({**results, **note} if infinite else results), indent=1, allow_nan=False)
    write_text(path, text + "\n")


def _without_infinity(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_infinity(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_infinity(value) for value in content]
    return None if isinstance(content, float) and math.isinf(content) else content


def share_of(entry: Results, images: Iterable[str]) -> Results:
    """Return what a system's entry says of some images, and its MACs: what processes tell each other, and journals keep."""
    share = {part: {image: entry[part][image] for image in images if image in entry[part]} for part in PARTS}
    return share | ({"macs": entry["macs"]} if "macs" in entry else {})


def take_in(entry: Results, share: Results) -> None:
    """Add such a share to an entry, in place."""
    for part in PARTS:
        entry[part] |= share.get(part, {})
    if "macs" in share:
        entry.setdefault("macs", share["macs"])


@contextmanager
def journal(path: str | Path | None, results: Results, processes: Processes) -> Iterator[Callable[[str, str], None]]:
    """Keep what the body measures in a file of JSON lines beside the results, until it ends well; without a path nowhere.

    Each process has a file of its own. The first line holds all that is known before anything is measured, and what the run
    takes over follows. What is appended last may be cut off by a crash.
    """
    if path is None:
        yield lambda system, image: None
        return
    own, entries = _journal_path(path, processes.rank), results["systems"]
    empty = {name: {**entry, "fingerprints": {}, "images": {}, "cost": {}} for name, entry in entries.items()}
    if not processes.first:
        processes.gather(None)
    with replacing(own) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps({**results, "systems": empty}) + "\n")
        for name, entry in entries.items():
            file.writelines(_line(name, entry, image) for image in entry["images"])
    if processes.first:
        for other in journals(path)[1:]:  # what an earlier run left there is in the first one's now
            other.unlink()
        processes.gather(None)
    with own.open("a", encoding="utf-8") as file:

        def keep(system: str, image: str) -> None:
            file.write(_line(system, entries[system], image))
            file.flush()

        yield keep
    own.unlink()


def _line(system: str, entry: Results, image: str) -> str:
    return json.dumps({"system": system, **share_of(entry, [image])}) + "\n"


def _journal_path(path: str | Path, rank: int = 0) -> Path:
    return Path(f"{path}.{rank}.part" if rank else f"{path}.part")


def journals(path: str | Path) -> list[Path]:
    """Return the journals there are of all processes of an earlier run, the first one's first."""
    path = Path(path)
    others = path.parent.glob(f"{escape(path.name)}.[0-9]*.part")
    return [one for one in (_journal_path(path), *sorted(others)) if one.is_file()]


def _read_journal(path: Path) -> Results | None:
    """Return the results that a journal holds; ``None`` if not even its head is whole."""
    lines = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        with suppress(ValueError):  # cut off
            lines.append(json.loads(line))
    if not lines or not isinstance(lines[0], dict) or lines[0].get("format") != FORMAT:
        return None
    results: Results = lines[0]
    for share in lines[1:]:
        take_in(results["systems"][share["system"]], share)
    return results
