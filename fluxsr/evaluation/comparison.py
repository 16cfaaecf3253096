"""Compares models and folders of results on one test set, from the arguments of `fluxsr evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fluxsr.processes import ALONE, Processes

if TYPE_CHECKING:
    from torch import Tensor

    from fluxsr.evaluation.document import Results
    from fluxsr.evaluation.testset import TestSet
    from fluxsr.inference import Upscaler

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
    load: Callable[[str], Upscaler] | None = None,
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
        scale: Magnification (default: as HR and LR say, or 4).
        results: Folders of results, each with a name.
        model: Models: nano-student, a file, folder or hub id of ours, or a file that spandrel loads (fluxsr[peers]).
        steps: Steps of our models' solver, or several counts.
        color_fix: Color fix of our models, or several of them: wavelet, adain, none.
        grid_fix: Remove the grid of our models' tokens.
        bicubic: Measure bicubic enlargement too, the baseline.
        metrics: Metrics to measure (default: the benchmark's, or psnr,ssim,lpips_alex,dists).
        crop: Pixels cut off each side for psnr and ssim (default: the benchmark's, or 0).
        period: Period of artefact_db, in pixels.
        weights: Folder of the perceptual networks and NIQE (default: what FLUXSR_WEIGHTS names).
        device: Device: auto, cuda, mps or cpu.
        save_images: Folder to keep the models' pictures in, for fluxsr report.
        load: Loads a model of ours by what ``model`` says; by default :meth:`fluxsr.inference.Upscaler.from_pretrained` with
            ``device`` and ``grid_fix``, which one of your own has to heed.
        progress: Is called with how many pictures are measured, and how many this process has to measure.
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
    if scale is not None and scale < 1:
        raise ValueError(f"--scale must be at least 1, got {scale}")
    from fluxsr.atomic import write_text
    from fluxsr.evaluation import systems as known
    from fluxsr.evaluation.benchmarks import FULL_REFERENCE, NO_REFERENCE
    from fluxsr.evaluation.metrics import Settings
    from fluxsr.evaluation.run import evaluate
    from fluxsr.evaluation.tables import to_csv, to_markdown
    from fluxsr.evaluation.testset import open_benchmark
    from fluxsr.inference import Upscaler
    from fluxsr.models.devices import choose_device

    restores = bool(model) or bicubic
    if benchmark:
        own = {"hr": hr, "lr": lr, "scale": scale, "degrade": degrade}
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise ValueError(f"--benchmark says itself what --{' and --'.join(given)} would: leave one of them out")
        testset, declared = open_benchmark(benchmark, root or os.environ.get(ROOT_VARIABLE))
        crop = declared.crop if crop is None else crop
        # FID is measured on files.
        measured = [name for name in declared.metrics if name != "fid" or not restores or save_images]
    else:
        testset = _open_own_images(hr, lr, scale, degrade, seed, restores)
        measured = list(FULL_REFERENCE if hr else NO_REFERENCE)
    settings = Settings(crop or 0, period, weights, str(choose_device(device)))
    folders = folders_by_name(results, "--results wants")
    systems = [known.folder_system(name, folder, testset) for name, folder in folders.items()]
    if bicubic:
        systems.append(known.bicubic())
    load = load or partial(Upscaler.from_pretrained, device=device, grid_fix=grid_fix)
    for entry in model:  # last: what takes long
        systems += known.load_systems(entry, load, device, steps, color_fix)
    document, *further = sorted(output, key=lambda path: not path.lower().endswith(".json"))
    measured = measured if metrics is None else list(metrics)
    found = evaluate(testset, systems, measured, settings, document, save_images, progress, processes)
    for path in further if processes.first else ():
        write_text(path, to_markdown(found) if path.lower().endswith(".md") else to_csv(found))
    return found


def folders_by_name(texts: Sequence[str], beginning: str) -> dict[str, str]:
    """Return folders by the names of texts such as ``ours=results/ours``; ``beginning`` is that of the message otherwise."""
    parts = [text.partition("=") for text in texts]
    folders = {name: place for name, _, place in parts if name and place}
    if len(folders) < len(texts):
        raise ValueError(f"{beginning} NAME=DIR, each with a name of its own, got {', '.join(texts)}")
    return folders


def check_options(models: Sequence[str], given: Sequence[str]) -> None:
    """Check that options of a model, by name, are given for one of ours alone."""
    if not given:
        return
    from fluxsr.evaluation.systems import is_peer, name_and_model

    said = f"--{' and --'.join(sorted(given))}"
    if len(models) != 1:
        raise ValueError(f"{said} need one --model, got {', '.join(models) or 'none'}")
    if is_peer(name_and_model(models[0])[1]):
        raise ValueError(f"{models[0]} is a model of another project, which knows no {said}")


def _open_own_images(
    hr: str | None, lr: str | None, scale: int | None, degrade: Degradation | None, seed: int, restores: bool
) -> TestSet:
    """Return the test set of the user's own folders; LR images that a system needs and that are missing are made."""
    from fluxsr.evaluation.testset import bicubic_degradation, open_folders

    if degrade and (lr or not hr):
        raise ValueError("--degrade makes LR images from --hr: give --hr, and no --lr")
    if degrade == "realesrgan":
        from fluxsr.data import RealESRGANDegradation

        pipeline = RealESRGANDegradation(scale=scale or 4)

        def made(hr_image: Tensor, number: int) -> Tensor:
            return pipeline(hr_image, seeds=[seed + number])

        return open_folders(hr, None, scale, made, f"realesrgan, seed {seed}")
    if degrade or (hr and not lr and restores):
        return open_folders(hr, None, scale, bicubic_degradation(scale or 4), "bicubic")
    return open_folders(hr, lr, scale)
