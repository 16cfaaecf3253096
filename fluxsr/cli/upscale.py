"""``fluxsr upscale``: photos in, larger photos out."""

from __future__ import annotations

import sys

from fluxsr.cli._support import model_options
from fluxsr.cli._support.options import Command
from fluxsr.cli._support.progress_bars import progress_bars
from fluxsr.cli._support.values import count, positive, width_and_height
from fluxsr.inference.batch import Watcher, upscale_files
from fluxsr.processes import launch

COMMAND = Command(
    "upscale",
    ("fluxsr.inference.batch:upscale_files", *model_options.FUNCTIONS, "fluxsr.processes:launch"),
    usage="IN ... -o OUT [options]",
    examples="""
    fluxsr upscale photo.jpg -o large.png
    fluxsr upscale holiday/ old/*.tif -o large/ --scale 2 --format png
    fluxsr upscale photo.jpg -o wall.png --size 3840x2160
    fluxsr upscale archive/ -o large/ --devices auto --skip_existing
    fluxsr upscale photo.jpg -o mine.png --model nano --lora outputs/fluxsr_nano/backbone.safetensors
    """,
    notes="""\
Folders keep their structure. PNG, JPEG, WebP, TIFF and BMP are read and written, 8 and 16 bit, gray, color and alpha, with
their ICC profile, EXIF and resolution.

Exit code: 0 if all went well, 1 if some files failed, 2 for a mistake in the options.""",
    positional="inputs",
    short={"o": "output"},
    values={**model_options.VALUES, "scale": positive, "size": width_and_height, "steps": count},
    shown={
        **model_options.SHOWN,
        "inputs": "IN",
        "output": "OUT",
        "size": "WxH",
        "suffix": "TEXT",
        "devices": "N|auto",
    },
    exclusive=(("scale", "size"), ("skip_existing", "overwrite")),
    hidden=model_options.HIDDEN,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = COMMAND.parse(arguments)
    devices = options.pop("devices")
    model = model_options.take_model(options)
    failed = False
    with launch(devices, model["device"]) as processes, progress_bars() as bars:
        options |= {"watcher": bars if processes.first else Watcher(), "processes": processes}
        for outcome in upscale_files(**options, load=lambda: model_options.load_upscaler(**model)):
            if outcome.warning:
                print(f"fluxsr: warning: {outcome.warning}", file=sys.stderr)
            if outcome.error:
                failed = True
                print(f"fluxsr: error: {' '.join(outcome.error.split())}", file=sys.stderr)
            else:
                height, width = outcome.size
                print(f"{outcome.target} {width}x{height}, {outcome.seconds:.1f} s")
        failed = any(processes.gather(failed))
    if failed and processes.first:
        raise SystemExit(1)
