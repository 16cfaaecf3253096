"""What reading and writing take beside the model in ``fluxsr upscale``, and what it brings to do them while the model works.

    python -m benchmarks.upscale_overlap [--device cuda] [--side 256] [--pictures 8] [--rounds 5]

The shares are of CPU time on one thread, so that other work on the machine does not count. The comparison is of wall-clock
time, in turn, and is left out with ``--rounds 0``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from benchmarks.upscale import picture
from fluxsr.inference import Upscaler
from fluxsr.inference.batch import compute, one_by_one, overlapped, read, write
from fluxsr.inference.jobs import Job
from fluxsr.inference.settings import Settings


def shares(upscaler: Upscaler, job: Job) -> str:
    """Return the CPU seconds of the three parts of a file, and the share of reading and writing."""
    settings, times = Settings(), [time.process_time()]
    work = read(job, settings)
    times.append(time.process_time())
    work = compute(upscaler, work, settings)
    times.append(time.process_time())
    write(job, work, settings)
    times.append(time.process_time())
    reading, computing, writing = (later - earlier for earlier, later in pairwise(times))
    share = (reading + writing) / (times[-1] - times[0])
    return (
        f"read {reading:.4f} s, compute {computing:.3f} s, write {writing:.4f} s: {share:.1%} are reading and writing"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=256, help="of the inputs, in pixels")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    upscaler = Upscaler.from_pretrained(device=options.device)
    with tempfile.TemporaryDirectory() as place:
        folder, image = Path(place), Image.fromarray(picture(None, 4 * options.side))
        torch.set_num_threads(1)
        for number, ending in enumerate(("png", "png", "jpg")):
            image.save(source := folder / f"one.{ending}")
            told = shares(upscaler, Job(source, folder / f"one_large.{ending}"))
            if number:  # the first warms up
                print(f"{ending}: {told}", flush=True)
        torch.set_num_threads(threads)
        if options.rounds:
            compared(upscaler, image, folder, options.pictures, options.rounds)


def compared(upscaler: Upscaler, image: Image.Image, folder: Path, pictures: int, rounds: int) -> None:
    """Print the wall-clock seconds of both ways, and check that they write the same bytes."""
    jobs = [Job(folder / f"{number}.png", folder / f"{number}_large.png") for number in range(pictures)]
    for job in jobs:
        image.save(job.source)
    seconds: dict[str, list[float]] = {"one_by_one": [], "overlapped": []}
    written = []
    for function in (one_by_one, overlapped) * (rounds + 1):
        start = time.perf_counter()
        outcomes = list(function(upscaler, jobs, Settings(), [None] * len(jobs)))
        seconds[function.__name__].append(time.perf_counter() - start)
        assert not any(outcome.error for outcome in outcomes), outcomes
        written.append([job.target.read_bytes() for job in jobs])
    assert all(one == written[0] for one in written), "the files differ"
    pairs = list(zip(*seconds.values(), strict=True))[1:]  # after a warm-up
    ratios = [one / other for one, other in pairs]
    print(f"one by one / overlapped: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
