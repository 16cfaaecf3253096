"""The peak of one function's memory: resident size in a fresh process on the CPU, the allocator's own count on CUDA."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable

import torch


def resident() -> int:
    """Return the bytes that this process has in memory (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_above(run: Callable[[], object], device: str = "cpu") -> int:
    """Return the most bytes in use during a run, above what was in use before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # Linux: forget the peak so far
    before = resident()
    run()
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return peak - before


def peak_of(module: str, variant: str) -> int:
    """Return what ``python -m module --peak-of variant`` prints.

    A process of its own, whose allocator hands freed blocks back at once; otherwise the peak would measure its caching.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", module, "--peak-of", variant]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])
