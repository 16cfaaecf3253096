"""What makes a processor faster at upscaling, and what it costs in the picture: the nano student, and taef1's convolutions.

    python -m benchmarks.without_gpu --hr FOLDER [--taef1 FOLDER] [--images 4] [--repeat 3]

Seconds are CPU time, of all threads together, so that other work on the machine counts less; each is the least of several
runs. Pictures are compared by PSNR on Y with HR photos that were reduced bicubically to a quarter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.images import list_images, read_image
from fluxsr.inference import Upscaler
from fluxsr.models import compile_blocks, fold_modulation, load_autoencoder

SIDE = 256  # of the middle of each photo


def photos(folder: str, count: int) -> list[Tensor]:
    """Return the middles of photos, ``(3, SIDE, SIDE)`` in ``[0, 1]``."""
    found = []
    for path in list_images(folder):
        image = read_image(path)
        top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
        if min(top, left) >= 0:
            found.append(image[:, top : top + SIDE, left : left + SIDE])
    return found[:count]


def forms() -> Iterator[tuple[str, Upscaler]]:
    """Yield the nano student in each form."""
    yield "eager, float32", Upscaler.from_pretrained(device="cpu", tile=256)
    yield "bfloat16", Upscaler.from_pretrained(device="cpu", tile=256, dtype="bfloat16")
    folded = Upscaler.from_pretrained(device="cpu", tile=256)
    folded.velocity = fold_modulation(folded.velocity, folded.start_time)
    yield "folded", folded
    compiled = Upscaler.from_pretrained(device="cpu", tile=256)
    compile_blocks(compiled.velocity)
    yield "compiled blocks", compiled
    both = Upscaler.from_pretrained(device="cpu", tile=256, dtype="bfloat16")
    compile_blocks(both.velocity)
    yield "compiled blocks, bfloat16", both


def luma(image: Tensor) -> Tensor:
    """Return Y of BT.601 in ``[0, 1]``."""
    weights = torch.tensor([65.481, 128.553, 24.966])[:, None, None] / 255
    return (image * weights).sum(dim=0) + 16 / 255


def psnr(one: Tensor, other: Tensor) -> float:
    """Return decibels."""
    return float(-10 * torch.log10((luma(one) - luma(other)).square().mean()))


def least_seconds(runs: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Return the CPU seconds of the fastest of several runs of each, taken in turns, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeat + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - began)
    return {name: min(times) for name, times in seconds.items()}


def table(title: str, functions: Mapping[str, Callable[[int], Tensor]], hr_images: list[Tensor], repeat: int) -> None:
    """Print seconds, speed and picture of each function of a photo's number."""
    runs = {name: (lambda f=f: [f(number) for number in range(len(hr_images))]) for name, f in functions.items()}
    seconds = least_seconds(runs, repeat)
    eager = next(iter(seconds.values()))
    megapixels = len(hr_images) * SIDE**2 / 1e6
    print(f"| {title} | CPU s per MP | times eager | PSNR-Y |\n|---|---|---|---|")
    for name, function in functions.items():
        value = sum(psnr(function(number), hr) for number, hr in enumerate(hr_images)) / len(hr_images)
        print(f"| {name} | {seconds[name] / megapixels:.2f} | {eager / seconds[name]:.2f} | {value:.2f} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hr", required=True)
    parser.add_argument("--taef1")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    hr_images = photos(options.hr, options.images)
    lr_images = [
        interpolate(hr[None], scale_factor=0.25, mode="bicubic", antialias=True)[0].clamp(0, 1) for hr in hr_images
    ]
    print(f"{len(hr_images)} photos to {SIDE}x{SIDE}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    students = dict(forms())
    table(
        "nano student",
        {name: (lambda number, u=u: u(lr_images[number])) for name, u in students.items()},
        hr_images,
        options.repeat,
    )
    if options.taef1 is None or not Path(options.taef1).is_dir():
        return
    functions = {}
    for name, dtype, layout in (
        ("eager, float32", "float32", torch.contiguous_format),
        ("channels_last", "float32", torch.channels_last),
        ("bfloat16", "bfloat16", torch.contiguous_format),
        ("channels_last, bfloat16", "bfloat16", torch.channels_last),
    ):
        autoencoder = load_autoencoder(options.taef1, dtype=dtype).to(memory_format=layout)

        @torch.inference_mode()
        def there_and_back(number: int, autoencoder=autoencoder, layout=layout) -> Tensor:
            latents = autoencoder.encode(hr_images[number][None].to(memory_format=layout))
            return autoencoder.decode(latents.to(memory_format=layout))[0].clamp(0, 1)

        functions[name] = there_and_back
    print()
    table("taef1, encode and decode", functions, hr_images, options.repeat)


if __name__ == "__main__":
    main()
