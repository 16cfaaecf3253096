"""Compares models and folders of results on one test set, from the arguments of `fluxsr evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluxsr.evaluation.names import folders_by_name
from fluxsr.processes import ALONE, Processes

if TYPE_CHECKING:
    from fluxsr.evaluation.document import Results
    from fluxsr.evaluation.systems import System
    from fluxsr.evaluation.testset import Degrade, TestSet
    from fluxsr.models.devices import DType

ROOT_VARIABLE = "FLUXSR_BENCHMARKS"

ColorFix = Literal["wavelet", "adain", "none"]
Degradation = Literal["bicubic", "realesrgan"]


def compare(
    output: Sequence[str],
    *,
    benchmark: str | None = None,
    root: str | None = None,
    hr: str | None = None,
    lr: str | None = None,
    degrade: Degradation | None = None,
    seed: int = 0,
    scale: int | None = None,
    results: Sequence[str] = (),
    model: Sequence[str] = (),
    steps: Sequence[int] = (1,),
    color_fix: Sequence[ColorFix] = ("wavelet",),
    grid_fix: bool = True,
    bicubic: bool = False,
    metrics: Sequence[str] | None = None,
    crop: int | None = None,
    period: int = 16,
    weights: str | None = None,
    device: str = "auto",
    save_images: str | None = None,
    lora: str | None = None,
    prompt: str | None = None,
    guidance: float | None = None,
    autoencoder: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    dtype: DType | None = None,
    memory: str | None = None,
    revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> Results:
    """Measure models and folders of results against a benchmark, image by image.

    Args:
        output: Files to write: out.json, from which an interrupted run resumes, and out.csv, out.md.
        benchmark: A known benchmark, or `list`.
        root: Folder that holds the benchmark (default: the folder that FLUXSR_BENCHMARKS names).
        hr: Reference images of your own: a folder or a pattern.
        lr: Low-resolution images of your own.
        degrade: Degradation that makes LR images from the HR images (default: bicubic, for models).
        seed: Seed of realesrgan's degradation.
        scale: Magnification (default: what HR and LR sizes say, or 4).
        results: Folders of results, each with a name.
        model: Models: nano-student, a file, folder or hub id of ours, or a file that spandrel loads (fluxsr[peers]).
        steps: Steps of our models' solver, or several counts.
        color_fix: Color fix of our models, or several of them: wavelet, adain, none.
        grid_fix: Remove the grid of our models' tokens, as upscaling does; without it, see what the model itself leaves.
        bicubic: Measure bicubic enlargement too, the baseline.
        metrics: Metrics to measure (default: the benchmark's, or psnr,ssim,lpips_alex,dists).
        crop: Pixels cut off each side for psnr and ssim (default: the benchmark's, or 0).
        period: Period of artefact_db, in pixels.
        weights: Folder of the perceptual networks and NIQE (default: what FLUXSR_WEIGHTS names).
        device: Device to run on: auto, cuda, mps or cpu.
        save_images: Folder to keep the models' pictures in, for fluxsr report.
        progress: Is called with how many pictures are measured, and how many this process has to measure.
        lora, prompt, guidance, autoencoder, start_time, window, dtype, memory, revision: Of the only model, which is then one
            of ours: as :meth:`fluxsr.inference.Upscaler.from_pretrained` takes them.
        processes: The processes that share the images; each of them makes the same call.

    Raises:
        ValueError: If arguments contradict each other, something is missing or can't be measured.
    """
    # Before the seconds that the libraries take.
    if not (results or model or bicubic):
        raise ValueError("nothing to measure: give --results NAME=DIR, --model PATH or --bicubic")
    for path in output:
        if Path(path).suffix.lower() not in (".json", ".csv", ".md"):
            raise ValueError(f"--output {path}: the name must end in .json, .csv or .md")
    if not any(path.lower().endswith(".json") for path in output):
        raise ValueError("--output needs one .json file, which an interrupted run goes on from")
    if (crop or 0) < 0 or period < 2:
        raise ValueError(f"--crop must be 0 or more and --period at least 2, got {crop or 0} and {period}")
    options: dict[str, Any] = {
        "lora": lora,
        "prompt": prompt,
        "guidance": guidance,
        "autoencoder": autoencoder,
        "start_time": start_time,
        "window": window,
        "dtype": dtype,
        "memory": memory,
        "revision": revision,
    }
    given = [name for name, value in options.items() if value is not None]
    if given and len(model) != 1:
        raise ValueError(f"--{' and --'.join(given)} need one --model, got {', '.join(model) or 'none'}")
    from fluxsr.atomic import write_text
    from fluxsr.evaluation.benchmarks import FULL_REFERENCE, NO_REFERENCE
    from fluxsr.evaluation.metrics import Settings
    from fluxsr.evaluation.run import evaluate
    from fluxsr.evaluation.systems import load_variants
    from fluxsr.evaluation.tables import to_csv, to_markdown
    from fluxsr.evaluation.testset import open_benchmark
    from fluxsr.models.devices import choose_device

    restores = bool(model) or bicubic
    if benchmark:
        own = {"hr": hr, "lr": lr, "scale": scale, "degrade": degrade}
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise ValueError(f"--benchmark says itself what --{' and --'.join(given)} would: leave one of them out")
        testset, known = open_benchmark(benchmark, root or os.environ.get(ROOT_VARIABLE))
        crop = known.crop if crop is None else crop
        # FID is measured on files.
        measured = [name for name in known.metrics if name != "fid" or not restores or save_images]
    else:
        testset = open_own_images(hr, lr, scale, degrade, seed, restores)
        measured = list(FULL_REFERENCE if hr else NO_REFERENCE)
    settings = Settings(crop or 0, period, weights, str(choose_device(device)))
    load = partial(load_variants, device=device, steps=steps, color_fixes=color_fix, grid_fix=grid_fix, **options)
    systems = gather_systems(testset, results, model, bicubic, load)
    document, *further = sorted(output, key=lambda path: not path.lower().endswith(".json"))
    total, done = len(processes.share(list(testset.items))) * len(systems), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    measured = measured if metrics is None else list(metrics)
    found = evaluate(testset, systems, measured, settings, document, save_images, advance, processes)
    for path in further if processes.first else ():
        write_text(path, to_markdown(found) if path.lower().endswith(".md") else to_csv(found))
    return found


def open_own_images(
    hr: str | None, lr: str | None, scale: int | None, degrade: Degradation | None, seed: int, restores: bool
) -> TestSet:
    """Return the test set of the user's own folders; LR images that a system needs and that are missing are made.

    Args:
        hr: Folder or pattern of HR images.
        lr: Folder or pattern of LR images.
        scale: Magnification; by default what the sizes say.
        degrade: Degradation that makes LR images from HR images.
        seed: Seed of that.
        restores: Whether a system has to restore something.

    Raises:
        ValueError: If the arguments contradict each other, or the images don't fit.
    """
    from fluxsr.evaluation.testset import open_folders

    if scale is not None and scale < 1:
        raise ValueError(f"--scale must be at least 1, got {scale}")
    if degrade and (lr or not hr):
        raise ValueError("--degrade makes LR images from --hr: give --hr, and no --lr")
    kind = degrade or ("bicubic" if hr and not lr and restores else None)
    if kind is None:
        return open_folders(hr, lr, scale)
    name = f"realesrgan, seed {seed}" if kind == "realesrgan" else kind
    return open_folders(hr, None, scale, make_degradation(kind, scale or 4, seed), name)


def make_degradation(kind: Degradation, scale: int, seed: int) -> Degrade:
    """Return what makes LR images of HR images; image number n has the seed ``seed + n``."""
    from fluxsr.evaluation.testset import bicubic_degradation

    if kind == "bicubic":
        return bicubic_degradation(scale)
    from fluxsr.data import RealESRGANDegradation

    degrade = RealESRGANDegradation(scale=scale)
    return lambda hr_image, number: degrade(hr_image, seeds=[seed + number])


def gather_systems(
    testset: TestSet,
    results: Sequence[str],
    model: Sequence[str],
    bicubic: bool,
    load: Callable[[str, str | None], list[System]],
) -> list[System]:
    """Return the systems: folders first, which are checked before any model is loaded by its source and name.

    Raises:
        ValueError: If a folder has no name or doesn't fit, or a model can't be loaded.
    """
    from fluxsr.evaluation import systems as known
    from fluxsr.evaluation.run import folder_system

    named = folders_by_name(results, "--results wants")
    systems = [folder_system(name, folder, testset) for name, folder in named.items()]
    if bicubic:
        systems.append(known.bicubic())
    for entry in model:
        name, sign, path = entry.partition("=")
        source, own_name = (path, name) if sign else (entry, None)
        systems += load(source, own_name)
    return systems
