"""Runs ``fluxsr upscale``: it enlarges and restores photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxsr.cli._support.command import Command
from fluxsr.cli._support.messages import ResultLines, tell
from fluxsr.cli._support.model_options import MODEL, SHOWN, load_upscaler, take_model
from fluxsr.cli._support.signatures import width_and_height

if TYPE_CHECKING:
    from fluxsr.inference import Upscaler

COMMAND = Command(
    "upscale",
    ("fluxsr.inference.batch:upscale_files", MODEL, "fluxsr.processes:launch"),
    examples="""
    fluxsr upscale photo.jpg -o large.png
    fluxsr upscale photo.jpg -o wall.png --longest 3840
    fluxsr upscale holiday/ old/*.tif -o large/ --scale 2 --format png --devices auto
    fluxsr upscale photo.jpg -o mine.png --model nano --lora outputs/fluxsr_nano/backbone.safetensors
    """,
    notes="""\
Folders keep their structure. PNG, JPEG, WebP, AVIF, TIFF and BMP are read and written with their profile, EXIF and XMP; GIF,
HEIC (fluxsr[heic]) and JPEG XL (fluxsr[jxl]) are read. After -o, a name that ends so is a file, and any other a folder.

Exit code: 0: all went well, 1: some files failed, 2: a mistake in the options, 130: Ctrl-C.""",
    positional="inputs",
    values={"size": width_and_height},
    shown={
        "inputs": "IN",
        "output": "OUT",
        "size": "WxH",
        "suffix": "TEXT",
        **SHOWN,
    },
    exclusive=("scale", "size", "longest", "width", "height"),
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    from fluxsr.inference.batch import Tally, upscale_files
    from fluxsr.processes import launch
    from fluxsr.progress import progress_of

    devices = options.pop("devices")
    model = take_model(options)
    lines, tally = ResultLines(), Tally()
    loaded: list[Upscaler] = []

    def load() -> Upscaler:
        loaded.append(load_upscaler(**model))
        return loaded[-1]

    try:
        with launch(devices, model["device"]) as processes, progress_of("", "MP") as report:
            options |= {"progress": report if processes.first else None, "processes": processes}
            for outcome in upscale_files(**options, load=load):
                tally.add(outcome)
                if outcome.warning:
                    tell(f"fluxsr: warning: {' '.join(outcome.warning.split())}")
                if outcome.error:
                    tell(f"fluxsr: error: {' '.join(outcome.error.split())}")
                elif outcome.target is not None:
                    height, width = outcome.size
                    lines.print(f"{outcome.target} {width}x{height}, {outcome.seconds:.1f} s")
            tally = sum(processes.gather(tally), Tally())
    except KeyboardInterrupt:
        tell("fluxsr: error: interrupted; the same command goes on with --skip-existing")
        raise SystemExit(130) from None
    if tally.done + tally.failed > 1 and processes.first:
        tell(f"fluxsr: {tally.line()}")
    for upscaler in loaded:
        _tell_peak(upscaler)
    if lines.problem:
        tell(f"fluxsr: error: can't write to stdout: {lines.problem}; the pictures are done")
    if processes.first and (tally.failed or lines.problem):
        raise SystemExit(1)


def _tell_peak(upscaler: Upscaler) -> None:
    """Print the peak that was measured beside the one that was planned, where there is a plan and a device that counts."""
    from fluxsr.inference.memory import measured_peak
    from fluxsr.sizes import gigabytes

    plan, measured = upscaler.memory_plan, measured_peak(upscaler.device)
    if plan is not None and measured is not None:
        tell(f"memory: measured peak {gigabytes(measured)}, expected {gigabytes(plan.peak_bytes)}")
