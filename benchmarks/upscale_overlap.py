"""Upscaling many files one by one, and with reading and writing beside the model: wall-clock seconds of both, in turn.

    python -m benchmarks.upscale_overlap [--device cuda] [--pictures 12] [--side 128] [--rounds 5]

On a CPU all of it works on the same cores; ``fluxsr upscale`` overlaps on other devices alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.upscale import picture
from fluxsr.inference import Upscaler
from fluxsr.inference.batch import Watcher, one_by_one, overlapped
from fluxsr.inference.jobs import Job
from fluxsr.inference.one_file import Settings


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--side", type=int, default=128, help="of the inputs, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    upscaler = Upscaler.from_pretrained(device=options.device)
    seconds: dict[str, list[float]] = {"one_by_one": [], "overlapped": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        jobs = []
        for number in range(options.pictures):
            source = folder / f"{number}.png"
            Image.fromarray(picture(None, 4 * options.side)).save(source)
            jobs.append((Job(source, folder / f"{number}_large.png"), 0))
        written = []
        for function in (one_by_one, overlapped) * (options.rounds + 1):
            start = time.perf_counter()
            outcomes = list(function(upscaler, jobs, Settings(), Watcher()))
            seconds[function.__name__].append(time.perf_counter() - start)
            assert not any(outcome.error for outcome in outcomes), outcomes
            written.append([job.target.read_bytes() for job, _ in jobs])
        assert all(one == written[0] for one in written), "the files differ"
    ratios = [
        a / b for a, b in zip(seconds["one_by_one"][1:], seconds["overlapped"][1:], strict=True)
    ]  # after a warm-up
    for name, values in seconds.items():
        print(f"{name:<12}{statistics.median(values[1:]):8.2f} s (median of {options.rounds})")
    print(f"one by one / overlapped: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
