"""Runs one evaluation of every metric of every system on every image, saved as it goes and resumable."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import combinations, count, product
from math import inf, isfinite, isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluxsr.digest import file_digest
from fluxsr.evaluation.cost import summary
from fluxsr.evaluation.document import (
    PARTS,
    Results,
    header,
    journal,
    journals,
    read_results,
    share_of,
    take_in,
    write_json,
)
from fluxsr.evaluation.metrics import METRICS, Metric, Settings, check_fid, fid, load_metrics, with_parts
from fluxsr.evaluation.systems import System
from fluxsr.evaluation.tables import published_rows
from fluxsr.evaluation.testset import TestSet
from fluxsr.images import write_image
from fluxsr.images.listing import named
from fluxsr.images.matching import stem
from fluxsr.processes import ALONE, Processes

ReadImage = Callable[[], Tensor | None]
RESAMPLES = 10_000
_AT_A_TIME = 2**20  # numbers in memory
_EXACT = 12  # up to so many images all sign patterns are gone through: 4096


def evaluate(
    testset: TestSet,
    systems: Sequence[System],
    metrics: Sequence[str],
    settings: Settings | None = None,
    output: str | Path | None = None,
    save_images: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> Results:
    """Measure systems on a test set.

    Args:
        testset: See :mod:`fluxsr.evaluation.testset`.
        systems: Systems with different names.
        metrics: Metrics by name, see :func:`fluxsr.evaluation.metrics.load_metric`. Those that need a reference or LR images
            are refused where there are none. One that is computed from others (``ntire``) adds them, and is itself added
            where all of them are measured.
        settings: Crop, period and so on.
        output: JSON file. As long as the run goes on, each image is appended to a file beside it, ending in ``.part``. Where
            one of them is there already, what it says of the same files, measured by the same protocol and versions, is taken
            over.
        save_images: Folder that the pictures of models are written to, as PNG; the report shows them.
        progress: Called after each image of a system, with how many are done and how many this process has to do.
        processes: The processes that share the images; each of them makes the same call.

    Returns:
        What is in the JSON file: ``systems.NAME.images.FILE.METRIC``, ``systems.NAME.mean.METRIC`` and so on.

    Raises:
        ValueError: If a name is there twice, or a metric can't be measured here (all are named, and all images that are too
            small for one, before anything is measured). If one can't be measured on an image, or ``output`` is another file.
    """
    settings = settings or Settings()
    if settings.degrade is None:
        settings = settings._replace(degrade=testset.degrade)
    names = [system.name for system in systems]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"every system needs a name of its own, got {', '.join(names) or 'no system'}")
    earlier: Results = {}
    if processes.first and output is not None and (Path(output).exists() or journals(output)):
        earlier = read_results(output)
    earlier = processes.gather(earlier)[0]
    metrics = with_parts(metrics)
    on_sets = [name for name in metrics if name in METRICS and METRICS[name].on_sets]
    if "fid" in on_sets:
        check_fid(len(testset.items))
    loaded = load_metrics((name for name in metrics if name not in on_sets), settings)
    _check_metrics(testset, loaded, on_sets, settings)

    run = _Run(header(testset, settings, loaded, on_sets), testset, loaded, save_images)
    for system in systems:
        run.take_over(system, earlier)
        known = run.results["systems"][system.name]["files"]
        if "fid" in on_sets and save_images is None and len(known) < len(testset.items):
            raise ValueError(f"fid of {system.name} is measured on files: give --save_images, too")
    mine, done = processes.share(list(testset.items)), count(1)
    with journal(output, run.results, processes) as keep, without_tf32():
        for name in mine:
            # All systems share an image, and where nothing is left to measure, none is read.
            hr_image, lr_image = cache(partial(testset.hr_image, name)), cache(partial(testset.lr_image, name))
            for system in systems:
                if run.measure(system, name, hr_image, lr_image):
                    keep(system.name, name)
                if progress is not None:
                    progress(next(done), len(mine) * len(systems))
        for found in processes.gather({name: share_of(run.results["systems"][name], mine) for name in names}):
            for name, share in found.items():
                take_in(run.results["systems"][name], share)
        if processes.first:
            run.summarize(on_sets, settings.device)
        if output is not None and processes.first:
            write_json(output, run.results)
        return processes.gather(run.results if processes.first else {})[0]


def _check_metrics(testset: TestSet, loaded: Sequence[Metric], on_sets: Sequence[str], settings: Settings) -> None:
    """Check that the images are there that the metrics compare with, and large enough."""
    compared = [metric.name for metric in loaded if metric.needs_lr]
    if compared and not testset.has_lr:
        raise ValueError(
            f"{', '.join(compared)} need LR images, and there are none: give --lr or --degrade, or leave them out"
        )
    blind = [metric.name for metric in loaded if metric.needs_reference] + list(on_sets)
    if not testset.has_reference and blind:
        raise ValueError(f"{', '.join(blind)} need HR images, and there are none: leave them out")
    for metric in loaded:
        small = [name for name, item in testset.items.items() if not metric.fits(*item.size, settings)]
        if small:
            raise ValueError(f"too small for {metric.name}: {named(small)}; leave the metric out, or these images")


@contextmanager
def without_tf32() -> Iterator[None]:
    """Run the body with TF32 off in matrix products and convolutions; a GPU's convolutions have it on by default."""
    backends: Any = torch.backends
    # Since torch 2.9 each kind of operation has a name of its own; the older names refuse to be read where they disagree.
    named = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn] if hasattr(backends.cudnn, "conv") else []
    older = [backends.cuda.matmul, backends.cudnn]
    before = [kind.fp32_precision for kind in named]
    allowed = [before[0] == "tf32", before[1] == "tf32"] if named else [kind.allow_tf32 for kind in older]
    for kind in older:
        kind.allow_tf32 = False
    for kind in named:
        kind.fp32_precision = "ieee"
    try:
        yield
    finally:
        for kind, value in zip(older, allowed, strict=True):
            kind.allow_tf32 = value
        for kind, value in zip(named, before, strict=True):
            kind.fp32_precision = value


class _Run:
    """The results as they grow."""

    def __init__(
        self, results: Results, testset: TestSet, metrics: Sequence[Metric], save_images: str | Path | None
    ) -> None:
        self.results = results
        self.testset = testset
        self.metrics = metrics
        self.save_images = save_images
        self.digest_of = cache(file_digest)  # systems have most files in common
        self.same_stems = max(Counter(map(stem, testset.items)).values(), default=1) > 1

    def take_over(self, system: System, earlier: Results) -> None:
        """Begin a system's entry with what an earlier run measured of the same files in the same way."""
        old = earlier.get("systems", {}).get(system.name, {})
        entry: Results = {"source": system.source, "matched_by": system.how, "parameters": system.parameters}
        entry |= {"files": {name: str(path) for name, path in system.files.items()}}
        entry |= {"fingerprints": {}, "images": {}, "cost": {}}
        self.results["systems"][system.name] = entry
        before = earlier.get("metrics", {})
        # A metric of one's own may have changed behind its name.
        wanted = [one.name for one in self.metrics if before.get(one.name, {}).get("source", one.source) == one.source]
        for name in self.testset.items:
            entry["fingerprints"][name] = self.fingerprint(system, name)
            if old.get("fingerprints", {}).get(name) != entry["fingerprints"][name] or name not in old["images"]:
                continue
            share = share_of(old, [name])
            if system.restore is None or not Path(share["files"].get(name, "")).is_file():
                del share["files"]
            take_in(entry, share)
            values = old["images"][name]
            entry["images"][name] = {metric: values[metric] for metric in wanted if metric in values}

    def measure(self, system: System, name: str, read_hr: ReadImage, read_lr: ReadImage) -> bool:
        """Measure what is not known yet of one image; returns whether that was anything."""
        entry = self.results["systems"][system.name]
        values = entry["images"].get(name, {})
        missing = [metric for metric in self.metrics if metric.name not in values]
        target = None
        if self.save_images is not None and system.restore is not None:
            # Results on a.png and a.jpg must not become one file; `match_names` knows names with a format added.
            target = Path(self.save_images) / system.name / f"{name if self.same_stems else stem(name)}.png"
        if not missing and (target is None or entry["files"].get(name) == str(target)):
            return False
        needed = system.restore is not None or any(metric.needs_lr for metric in missing)
        lr_image = read_lr() if needed else None
        size = self.testset.items[name].size
        picture, cost = system.picture(name, lr_image, size)
        if cost is not None and lr_image is not None:
            entry["cost"][name] = cost
            if "macs" not in entry:
                entry["macs"] = {"of": list(lr_image.shape[-2:]), "stages": system.macs(lr_image, size)}
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, picture[0])
            entry["files"][name] = str(target)
        for metric in missing:
            try:
                value = metric.score(picture, lr_image if metric.needs_lr else read_hr())
                if isnan(value) or value == -inf:
                    raise ValueError(f"it is {value}, which has no mean")
            except ValueError as error:
                raise ValueError(f"{metric.name} of {name} ({system.name}): {error}") from error
            values = {**values, metric.name: value}
        entry["images"][name] = {metric.name: values[metric.name] for metric in self.metrics}
        return True

    def fingerprint(self, system: System, name: str) -> str:
        """Return what changes when anything does that a result depends on: protocol, versions, files, model."""
        item = self.testset.items[name]
        facts = [self.results["protocol"], self.results["versions"], system.identity, name]
        if system.restore is not None and item.lr is None:
            facts.append(self.testset.number(name))  # the degradation's seed
        read = [item.hr, item.lr, system.files[name] if system.restore is None else None]
        content = [self.digest_of(path) for path in read if path is not None]
        return hashlib.sha256(json.dumps([*facts, *content], sort_keys=True).encode()).hexdigest()

    def summarize(self, on_sets: Sequence[str], device: str) -> None:
        """Add means, intervals, costs, what is measured on the whole set, and the comparisons."""
        for entry in self.results["systems"].values():
            for part in PARTS:  # in the test set's order: what was taken over came first
                entry[part] = {name: entry[part][name] for name in self.testset.items if name in entry[part]}
            per_metric = columns(entry["images"])
            entry["mean"] = {metric: fmean(values) for metric, values in per_metric.items()}
            entry["interval"] = {metric: list(bootstrap_interval(values)) for metric, values in per_metric.items()}
            if entry["cost"]:
                entry["cost_summary"] = summary(list(entry["cost"].values()))
            for metric in on_sets:
                combine = METRICS[metric].combine
                if combine is not None:
                    entry["mean"][metric] = combine(entry["mean"])
                else:
                    references = [item.hr for item in self.testset.items.values() if item.hr is not None]
                    entry["mean"][metric] = fid(map(Path, entry["files"].values()), references, device)
        self.results["published"] = [row._asdict() for row in published_rows(self.results)]
        self.results["comparisons"] = comparisons(self.results)


def comparisons(results: Results) -> list[Results]:
    """Return, for each metric and two systems, the mean difference (second less first), its interval and its p-value."""
    found = []
    for first, second in combinations(results["systems"], 2):
        ours, theirs = (columns(results["systems"][name]["images"]) for name in (first, second))
        for metric in ours:
            differences = [b - a for a, b in zip(ours[metric], theirs[metric], strict=True)]
            if all(map(isfinite, differences)):  # the PSNR of equal images is not
                row = {"metric": metric, "first": first, "second": second, "difference": fmean(differences)}
                row |= {"interval": list(bootstrap_interval(differences)), "p_value": sign_flip_p_value(differences)}
                found.append(row)
    return found


def columns(images: Results) -> dict[str, list[float]]:
    """Return the values of each metric, image after image."""
    names = next(iter(images.values())) if images else {}
    return {metric: [values[metric] for values in images.values()] for metric in names}


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean, over images; 10,000 resamples, seeded."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():  # the PSNR of an image that equals its reference
        return float(numbers.mean()), float(numbers.mean())
    generator = np.random.default_rng(0)
    draws = (generator.integers(numbers.size, size=(some, numbers.size)) for some in _portions(numbers.size))
    low, high = np.quantile(np.concatenate([numbers[draw].mean(axis=1) for draw in draws]), [0.025, 0.975])
    return float(low), float(high)


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of "the two systems are alike", from the paired differences of the images.

    It is the share of sign patterns whose mean is at least as far from 0: of all up to 12 images, else of 10,000 random ones
    and the measured one.
    """
    numbers = np.asarray(differences, dtype=np.float64)
    # Differences that are equal but for rounding must count as equal.
    measured = abs(numbers.mean()) * (1 - 1e-12)
    if numbers.size <= _EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=numbers.size)))
        return float((np.abs(signs @ numbers / numbers.size) >= measured).mean())
    generator = np.random.default_rng(0)
    draws = (generator.choice((-1.0, 1.0), size=(some, numbers.size)) for some in _portions(numbers.size))
    hits = sum(int((np.abs(signs @ numbers / numbers.size) >= measured).sum()) for signs in draws)
    return (hits + 1) / (RESAMPLES + 1)


def _portions(images: int) -> list[int]:
    """Return how many resamples are drawn at a time: of thousands of images all of them would take a gigabyte."""
    most = max(1, _AT_A_TIME // images)
    return [min(most, RESAMPLES - start) for start in range(0, RESAMPLES, most)]
