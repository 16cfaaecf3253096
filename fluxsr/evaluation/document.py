"""The file of an evaluation: what it says of the protocol, the versions and the machine, and how it is read and written."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fluxsr.atomic import write_text
from fluxsr.evaluation.metrics import Metric, Settings, facts_of, row_of
from fluxsr.evaluation.testset import TestSet

FORMAT = 1
LIBRARIES = ("torch", "torchvision", "torchmetrics", "numpy", "pillow", "lpips", "pyiqa", "spandrel")
Results = dict[str, Any]


def header(testset: TestSet, settings: Settings, metrics: Sequence[Metric], on_sets: Sequence[str]) -> Results:
    """Return all that is known before anything is measured."""
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
            "artefact_period": settings.period,
        },
        "matched_by": testset.how,
        "metrics": {
            **{metric.name: facts_of(metric) for metric in metrics},
            **{name: facts_of(row_of(name)) for name in on_sets},
        },
        "versions": versions(),
        "machine": machine(settings.device),
        "images": {
            name: {"hr": item.hr and str(item.hr), "lr": item.lr and str(item.lr), "size": list(item.size)}
            for name, item in testset.items.items()
        },
        "systems": {},
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that a number can depend on."""
    from fluxsr import __version__

    found = {"fluxsr": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def machine(device: str) -> dict[str, Any]:
    """Return what the times were measured on."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return {"system": platform.system(), "device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def read_results(path: str | Path) -> Results:
    """Read the JSON file of an evaluation, finished or not.

    Raises:
        ValueError: if it is missing or something else.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file of an evaluation: move it, or choose another name") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT or "systems" not in results:
        raise ValueError(f"{path} is not what `fluxsr evaluate` writes: move it, or choose another name")
    return results


def write_json(path: str | Path, results: Results) -> None:
    """Write results whole or not at all."""
    write_text(path, json.dumps(results, indent=1) + "\n")
