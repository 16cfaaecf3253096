"""``fluxsr evaluate``: metrics of models and of folders of results, with the protocol written down."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from fluxsr.cli.main import fail
from fluxsr.cli.run import argument_parser
from fluxsr.progress import progress

if TYPE_CHECKING:
    from fluxsr.evaluation import Settings, System, TestSet
    from fluxsr.evaluation.testset import Degrade

ROOT_VARIABLE = "FLUXSR_BENCHMARKS"

EXAMPLES = """
fluxsr evaluate --hr photos/ --results ours=out/ theirs=other/ --metrics psnr,ssim,lpips_alex,dists,niqe --output out.json
fluxsr evaluate --benchmark set14 --root benchmarks/ --bicubic --model nano-student --output out.json out.md
fluxsr evaluate --hr 'Set5/*_HR.png' --lr 'Set5/*_LR.png' --model mine=student.safetensors --metrics psnr --output out.json
"""

NOTES = """\
Metrics: psnr, ssim (of the BT.601 luma), psnr_rgb, ssim_rgb, ssim_tables (as recent papers have it), lpips_alex, lpips_vgg,
lpips_squeeze, lpips_nano, dists, niqe, artefact_db, fid; any other name is asked of pyiqa (musiq, maniqa, clipiqa, topiq_nr,
qalign), an extra whose licence is non-commercial. `--benchmark list` lists the benchmarks.

Images are matched by name. A folder in which some are missing, extra or of another size is refused. The JSON file
is written after each image; the same command goes on after an interruption. Exit code: 0, or 2 for a mistake."""


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    if options.benchmark == "list":
        list_benchmarks()
        return
    # Before the seconds that the libraries take.
    if not (options.results or options.model or options.bicubic):
        fail("nothing to measure: give --results NAME=DIR, --model PATH or --bicubic")
    for path in options.output:
        if Path(path).suffix.lower() not in (".json", ".csv", ".md"):
            fail(f"--output {path}: the name must end in .json, .csv or .md")
    if not any(path.lower().endswith(".json") for path in options.output):
        fail("--output needs one .json file, which an interrupted run goes on from")
    from fluxsr.atomic import write_text
    from fluxsr.evaluation.run import evaluate
    from fluxsr.evaluation.tables import print_table, to_csv, to_markdown

    testset, metrics, settings = prepare(options)
    systems = gather(options, testset)
    results_file, *further = sorted(options.output, key=lambda path: not path.lower().endswith(".json"))
    with progress("measuring", len(testset.items) * len(systems)) as advance:
        results = evaluate(testset, systems, metrics, settings, results_file, options.save_images, advance)
    for path in further:
        write_text(path, to_markdown(results) if path.lower().endswith(".md") else to_csv(results))
    print_table(results)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argument_parser(
        "evaluate",
        "Measure models and folders of results against a benchmark, image by image.",
        "(--benchmark NAME | --hr DIR) [--results NAME=DIR ...] [--model PATH ...] --output FILE ... [options]",
        EXAMPLES,
        NOTES,
    )
    add = parser.add_argument
    add("--benchmark", metavar="NAME", help="a known benchmark, or `list`")
    add("--root", metavar="DIR", help=f"where it lies (default: the folder that {ROOT_VARIABLE} names)")
    add("--hr", metavar="DIR", help="reference images of your own: a folder or a pattern")
    add("--lr", metavar="DIR", help="low-resolution images of your own")
    add("--degrade", choices=("bicubic", "realesrgan"), help="make LR images from --hr (default: bicubic, for models)")
    add("--seed", type=int, default=0, metavar="N", help="of --degrade realesrgan (default: 0)")
    add("--scale", type=int, metavar="N", help="magnification (default: what HR and LR sizes say, or 4)")
    add("--results", nargs="+", action="extend", default=[], metavar="NAME=DIR", help="folders of results")
    add(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]PATH",
        help="models: nano-student, a file, folder or hub id of ours, or a file that spandrel loads (fluxsr[peers])",
    )
    add(
        "--steps",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="of our models' solver (default: 1), or several counts",
    )
    add(
        "--color-fix",
        nargs="+",
        choices=("wavelet", "adain", "none"),
        default=["wavelet"],
        metavar="KIND",
        help="of our models: wavelet (default), adain, none, or several of them",
    )
    add("--bicubic", action="store_true", help="bicubic enlargement, the baseline")
    add(
        "--metrics",
        metavar="A,B,...",
        help="what is measured (default: the benchmark's, or psnr,ssim,lpips_alex,dists)",
    )
    add(
        "--crop",
        type=int,
        metavar="N",
        help="pixels cut off each side for psnr and ssim (default: the benchmark's, or 0)",
    )
    add("--period", type=int, default=16, metavar="N", help="of artefact_db, in pixels (default: 16)")
    add("--weights", metavar="DIR", help="of the perceptual networks and NIQE (default: what FLUXSR_WEIGHTS names)")
    add("--device", default="auto", metavar="NAME", help="auto, cuda, mps or cpu (default: auto)")
    add("--save-images", metavar="DIR", help="keep the models' pictures, for fluxsr report")
    add("--output", nargs="+", action="extend", default=[], metavar="FILE", help="out.json, and out.csv, out.md")
    return parser


def prepare(options: argparse.Namespace) -> tuple[TestSet, list[str], Settings]:
    """Return the test set, the metrics and their settings."""
    from fluxsr.evaluation.benchmarks import FULL_REFERENCE, NO_REFERENCE
    from fluxsr.evaluation.metrics import Settings
    from fluxsr.evaluation.testset import open_benchmark
    from fluxsr.models.devices import choose_device

    if options.metrics is not None and not options.metrics.replace(",", "").strip():
        raise ValueError("--metrics names none")
    crop = options.crop or 0
    if options.benchmark:
        given = [name for name in ("hr", "lr", "scale", "degrade") if getattr(options, name) is not None]
        if given:
            raise ValueError(f"--benchmark says itself what --{' and --'.join(given)} would: leave one of them out")
        testset, benchmark = open_benchmark(options.benchmark, options.root or os.environ.get(ROOT_VARIABLE))
        crop = benchmark.crop if options.crop is None else options.crop
        metrics = list(benchmark.metrics)
        if "fid" in metrics and needs_lr(options) and not options.save_images:
            metrics.remove("fid")  # it is measured on files
    else:
        testset = open_own(options)
        metrics = list(FULL_REFERENCE if options.hr else NO_REFERENCE)
    if options.metrics is not None:
        metrics = [name.strip() for name in options.metrics.split(",") if name.strip()]
    if crop < 0 or options.period < 2:
        raise ValueError(f"--crop must be 0 or more and --period at least 2, got {crop} and {options.period}")
    return testset, metrics, Settings(crop, options.period, options.weights, str(choose_device(options.device)))


def open_own(options: argparse.Namespace) -> TestSet:
    """Return the test set of folders of one's own; LR images that a system needs and nobody has are made."""
    from fluxsr.evaluation.testset import open_folders

    if options.scale is not None and options.scale < 1:
        raise ValueError(f"--scale must be at least 1, got {options.scale}")
    if options.degrade and (options.lr or not options.hr):
        raise ValueError("--degrade makes LR images from --hr: give --hr, and no --lr")
    kind = options.degrade or ("bicubic" if options.hr and not options.lr and needs_lr(options) else None)
    if kind is None:
        return open_folders(options.hr, options.lr, options.scale)
    name = f"realesrgan, seed {options.seed}" if kind == "realesrgan" else kind
    return open_folders(options.hr, None, options.scale, degradation(kind, options.scale or 4, options.seed), name)


def needs_lr(options: argparse.Namespace) -> bool:
    """Whether a system has to restore something."""
    return bool(options.model or options.bicubic)


def degradation(kind: str, scale: int, seed: int) -> Degrade:
    """Return what makes LR images of HR images."""
    from fluxsr.evaluation.testset import bicubic_degradation

    if kind == "bicubic":
        return bicubic_degradation(scale)
    from fluxsr.data import RealESRGANDegradation

    degrade = RealESRGANDegradation(scale=scale)
    return lambda hr_image, number: degrade(hr_image, seeds=[seed + number])


def gather(options: argparse.Namespace, testset: TestSet) -> list[System]:
    """Return the systems: folders first, which are checked before any model is loaded."""
    from fluxsr.evaluation.run import folder_system
    from fluxsr.evaluation.systems import bicubic, load_model

    systems = []
    for entry in options.results:
        name, sign, folder = entry.partition("=")
        if not (name and sign and folder):
            raise ValueError(f"--results wants NAME=DIR, got {entry!r}")
        systems.append(folder_system(name, folder, testset))
    if options.bicubic:
        systems.append(bicubic())
    for entry in options.model:
        name, sign, path = entry.partition("=")
        for steps, color_fix in product(options.steps, options.color_fix):
            system = load_model(path if sign else entry, name if sign else None, options.device, steps, color_fix)
            said = [system.name]
            said += [f"{steps} step{'s' if steps > 1 else ''}"] if options.steps != [1] else []
            said += [f"colour fix {color_fix}"] if options.color_fix != ["wavelet"] else []
            systems.append(replace(system, name=", ".join(said)))
    return systems


def list_benchmarks() -> None:
    """Print the known benchmarks."""
    from fluxsr.evaluation.benchmarks import BENCHMARKS

    for benchmark in BENCHMARKS.values():
        checksum = "checksum known" if benchmark.sha256 else "no checksum known"
        print(f"{benchmark.name:<14}{benchmark.title}: {benchmark.images} images, x{benchmark.scale}, {checksum}")
        print(f"{'':<14}{benchmark.source}")
