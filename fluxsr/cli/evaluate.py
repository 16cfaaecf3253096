"""Runs ``fluxsr evaluate``: it measures models and folders of results, and writes the protocol down."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from fluxsr.cli._support.command import Command
from fluxsr.cli._support.model_options import MODEL, SHOWN
from fluxsr.cli._support.signatures import commas, read_signature

COMMAND = Command(
    "evaluate",
    ("fluxsr.evaluation.comparison:compare", MODEL, "fluxsr.processes:launch"),
    usage="(--benchmark NAME | --hr DIR) [--results NAME=DIR ...] [--model PATH ...] --output FILE ... [options]",
    examples="""
    fluxsr evaluate --hr photos/ --results ours=out/ theirs=other/ --metrics psnr,ssim,lpips_alex,dists,niqe --output out.json
    fluxsr evaluate --benchmark set14 --root benchmarks/ --bicubic --model nano-student --output out.json out.md
    fluxsr evaluate --hr 'Set5/*_HR.png' --lr 'Set5/*_LR.png' --model mine=student.safetensors --metrics psnr --output out.json
    """,
    notes="""\
Metrics: psnr, ssim (of the BT.601 luma), psnr_rgb, ssim_rgb, ssim_tables (as recent papers have it), lpips_alex, lpips_vgg,
lpips_squeeze, lpips_nano, dists, niqe, artefact_db, consistency, ntire, fid. NAME=module:function measures by a function of
your own. Any other name is looked up in pyiqa (musiq, maniqa, clipiqa, topiq_nr, qalign), an extra whose license is
non-commercial. `--benchmark list` lists the benchmarks.

Images are matched by name. A folder in which some are missing, extra or of another size is refused. What is measured is
appended to FILE.json.part after each image, and FILE.json is written in the end; the same command goes on after an
interruption. Exit code: 0, or 2 for a mistake.""",
    values={"metrics": commas},
    shown={
        **dict.fromkeys(("root", "hr", "lr", "weights", "save_images"), "DIR"),
        "benchmark": "NAME",
        "results": "NAME=DIR",
        "model": "[NAME=]PATH",
        **SHOWN,
        "color_fix": "KIND",
        "metrics": "A,B,...",
        "output": "FILE",
    },
    hidden=frozenset({"tile", "ensemble"}),
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    if {"--benchmark=list"} & {*arguments, *map("=".join, pairwise(arguments))}:
        list_benchmarks()
        return
    options = COMMAND.parse(arguments)
    from fluxsr.cli._support.model_options import load_upscaler
    from fluxsr.evaluation.comparison import check_options, compare
    from fluxsr.processes import launch
    from fluxsr.progress import progress_of

    devices = options.pop("devices")
    of_compare = read_signature(COMMAND.functions[0])[1]
    chosen = {name: options.pop(name) for name in options.keys() - of_compare.keys()}
    check_options(options["model"], [name for name, value in chosen.items() if value is not None])
    load = partial(load_upscaler, device=options["device"], grid_fix=options["grid_fix"], **chosen)
    with launch(devices, options["device"]) as processes:
        with progress_of("measuring") as report:
            watch = report if processes.first else None
            results = compare(**options, load=load, progress=watch, processes=processes)
        if processes.first:
            from fluxsr.evaluation.tables import print_table

            print_table(results)


def list_benchmarks() -> None:
    """Print the known benchmarks."""
    from fluxsr.evaluation.benchmarks import BENCHMARKS

    for benchmark in BENCHMARKS.values():
        checksum = "checksum known" if benchmark.sha256 else "no checksum known"
        print(f"{benchmark.name:<14}{benchmark.title}: {benchmark.images} images, x{benchmark.scale}, {checksum}")
        print(f"{'':<14}{benchmark.source}")
