"""How many crops per second one CPU core degrades, at two crop sizes."""

import time

import torch

from fluxsr.data import RealESRGANDegradation


def images_per_second(size: int, count: int) -> float:
    """Rate per second of CPU time over `count` seeds on a crop of `size` x `size`, after a warm-up."""
    degradation = RealESRGANDegradation(scale=4)
    # Smooth structures with some texture, so that the JPEG and noise steps have something to do.
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    crop = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)[0]
    for seed in range(max(2, count // 10)):
        degradation(crop, seeds=seed)
    start = time.process_time()
    for seed in range(count):
        degradation(crop, seeds=seed)
    return count / (time.process_time() - start)


def run() -> dict[str, float]:
    """Measure; keys end in the unit. The degradation takes one thread by itself."""
    return {
        "degradation_64px_images_per_second": images_per_second(64, 300),
        "degradation_512px_images_per_second": images_per_second(512, 40),
    }


def main() -> None:
    for name, value in run().items():
        print(f"{name}: {value:.1f}")


if __name__ == "__main__":
    main()
