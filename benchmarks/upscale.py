"""Upscaling by the shipped student: megapixels per second and memory, by stage, tile and area, beside its peers.

    python -m benchmarks.upscale [--photo photo.png] [--weights FOLDER]

WEIGHTS is a folder with ``RealESRGAN_x4plus*.pth`` somewhere inside, for the convolutional peer (needs spandrel). Times are CPU
time on one thread, so that other work on the machine does not count; memory is the peak above what is resident with everything
loaded (Linux only).
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.images import read_picture
from fluxsr.inference import Upscaler
from fluxsr.models import fold_modulation

TILES = (64, 128, 256, None)
SIDES = (256, 512, 1024, 1536)  # of the result, for the growth with its area
SIDE = 512  # of the result, for everything else
SCALE = 4


def picture(path: str | None, side: int) -> np.ndarray:
    """Return an LR picture ``(side / 4, side / 4, 3)`` uint8: of a photo, mirrored where it is too small, or made up."""
    side //= SCALE
    if path is not None:
        pixels = read_picture(path).pixels
        pixels = pixels[..., :3] if pixels.shape[2] > 2 else np.repeat(pixels[..., :1], 3, axis=2)
        pad = [(0, max(0, side - length)) for length in pixels.shape[:2]]
        return np.pad(pixels, [*pad, (0, 0)], mode="symmetric")[:side, :side]
    generator = torch.Generator().manual_seed(0)
    layers = [
        interpolate(torch.rand(1, 3, n, n, generator=generator), size=(side, side), mode="bicubic")
        for n in (4, 16, side)
    ]
    image = sum(layer * weight for layer, weight in zip(layers, (0.6, 0.3, 0.1), strict=True))
    return (image[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()


def resident_memory(name: str) -> float:
    """Return ``VmRSS``, what this process has in memory, or ``VmHWM``, its peak, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def stages(pixels: np.ndarray, color_fix: str = "wavelet") -> dict[str, float]:
    """Return the seconds of each stage of one image."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*arguments, **options)
            seconds[name] += time.process_time() - start
            return result

        return run

    upscaler = timed("load", Upscaler.from_pretrained)(device="cpu")
    autoencoder = upscaler.autoencoder
    autoencoder.encode, autoencoder.decode = timed("encode", autoencoder.encode), timed("decode", autoencoder.decode)
    options = {"window": upscaler.window, "device": upscaler.device}
    velocity = timed("transformer", upscaler.velocity)
    plain = Upscaler(velocity, autoencoder, upscaler.start_time, color_fix="none", **options)
    plain(pixels[:16, :16])  # warm-up
    for name in ("encode", "transformer", "decode"):
        seconds[name] = 0.0
    start = time.process_time()
    plain(pixels)
    seconds["resize and blend"] = (
        time.process_time() - start - sum(seconds[n] for n in ("encode", "transformer", "decode"))
    )
    measured = dict(seconds)
    fixed = Upscaler(lambda x, t: torch.zeros_like(x), autoencoder, upscaler.start_time, color_fix=color_fix, **options)
    unfixed = Upscaler(fixed.velocity, autoencoder, upscaler.start_time, color_fix="none", **options)
    times = []
    for one in (fixed, unfixed):
        start = time.process_time()
        one(pixels)
        times.append(time.process_time() - start)
    return measured | {f"color ({color_fix})": times[0] - times[1]}


def measure(upscaler: Upscaler, pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return an upscaled image, its seconds, and its MB above what was resident before."""
    before = resident_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = time.process_time()
    output = upscaler(pixels, SCALE)
    return output, time.process_time() - start, resident_memory("VmHWM") - before


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of 8-bit images."""
    error = np.square(a.astype(float) - b).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def peers(pixels: np.ndarray, weights: str | None) -> dict[str, float]:
    """Return the seconds of bicubic and of Real-ESRGAN on the same image."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    systems: dict[str, Callable[[Tensor], Tensor]] = {
        "bicubic": lambda x: interpolate(x, scale_factor=SCALE, mode="bicubic")
    }
    files = sorted(Path(weights).rglob("RealESRGAN_x4plus*.pth")) if weights else []
    if files:
        from spandrel import ModelLoader

        systems["Real-ESRGAN x4plus, untiled"] = ModelLoader(device="cpu").load_from_file(files[0]).model.eval().float()
    seconds = {}
    with torch.inference_mode():
        for name, system in systems.items():
            system(image[..., :16, :16])
            start = time.process_time()
            system(image)
            seconds[name] = time.process_time() - start
    return seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", help="by default a made-up picture")
    parser.add_argument("--weights")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pixels, megapixels = picture(options.photo, SIDE), SIDE**2 / 1e6
    print(f"x{SCALE} to {SIDE}x{SIDE}; speeds in megapixels of the result per second")
    for name, seconds in stages(pixels).items():
        print(f"  {name:<24}{seconds:8.2f} s" + (f"{megapixels / seconds:10.2f} MP/s" if name != "load" else ""))
    upscaler = Upscaler.from_pretrained(device="cpu", tile=None)
    off, *_ = measure(upscaler, pixels)
    print(f"tile (the window is {upscaler.window})     MP/s   MB above loaded   PSNR with tile off")
    for tile in TILES:
        upscaler.tile = tile
        output, seconds, megabytes = measure(upscaler, pixels)
        print(f"  {tile or 'off':<20}{megapixels / seconds:10.2f}{megabytes:14.0f}{psnr(output, off):18.1f} dB")
    print("folded (the modulation layers as constants)")
    upscaler.tile = "auto"
    whole = upscaler.velocity
    for name, velocity in (("whole", whole), ("folded", fold_modulation(whole, upscaler.start_time))):
        upscaler.velocity = velocity
        size = sum(tensor.nbytes for tensor in velocity.transformer.state_dict().values()) / 1e6
        output, seconds, _ = measure(upscaler, pixels)
        print(f"  {name:<20}{megapixels / seconds:10.2f} MP/s{size:10.2f} MB of weights{psnr(output, off):10.1f} dB")
    upscaler.velocity = whole
    print("growth with the area of the result, tile auto")
    times = []
    for side in SIDES:
        _, seconds, megabytes = measure(upscaler, picture(options.photo, side))
        times.append(seconds)
        print(f"  {side}x{side:<14}{seconds:8.2f} s{megabytes:10.0f} MB")
    exponent = np.polyfit(np.log([side**2 for side in SIDES]), np.log(times), 1)[0]
    print(f"  seconds grow with area to the power of {exponent:.2f}")
    print("peers on the same image")
    for name, seconds in peers(pixels, options.weights).items():
        print(f"  {name:<32}{megapixels / seconds:8.2f} MP/s")


if __name__ == "__main__":
    main()
