"""What each of two processes runs for test_processes.py: commands by their functions, all after one start.

python tests/in_two_processes.py FOLDER DEVICES
"""

from __future__ import annotations

import sys
from pathlib import Path

from fluxsr.evaluation.comparison import compare
from fluxsr.inference import Upscaler
from fluxsr.inference.batch import upscale_files
from fluxsr.processes import Processes, launch


def upscale(folder: Path, processes: Processes) -> None:
    def load() -> Upscaler:
        return Upscaler.from_pretrained(device="cpu")

    inputs = [str(folder.parent / "photos"), "missing.png"]
    for again in range(2):  # what is there already is refused by the first plan, or by none
        outcomes = list(upscale_files(inputs, str(folder / "pictures"), scale=2, load=load, processes=processes))
        everything = [outcome for share in processes.gather(outcomes) for outcome in share]
        errors = [outcome.error for outcome in everything if outcome.error]
        assert (len(everything), len(errors)) == (6, 6 if again else 1), errors


def evaluate(folder: Path, processes: Processes) -> None:
    wanted = {"hr": str(folder.parent / "photos"), "degrade": "bicubic", "scale": 4, "bicubic": True, "device": "cpu"}
    wanted |= {"model": ["nano-student"], "metrics": ["psnr", "ssim"], "save_images": str(folder / "kept")}
    done: list[tuple[int, int]] = []

    def report(count: int, total: int) -> None:
        done.append((count, total))

    output = [str(folder / "out.json"), str(folder / "out.csv")]
    results = compare(output, **wanted, progress=report, processes=processes)
    assert len(results["systems"]["nano-student"]["images"]) == 5
    assert done[-1] == (done[-1][1], 2 * len(processes.share(range(5))))
    assert processes.gather(results) == [results] * processes.world


if __name__ == "__main__":
    with launch(int(sys.argv[2]), "cpu") as processes:
        upscale(Path(sys.argv[1]), processes)
        evaluate(Path(sys.argv[1]), processes)
        if processes.world > 1:
            raise ValueError("all of them say this")
