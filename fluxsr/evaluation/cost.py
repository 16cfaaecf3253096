"""Measures the cost of restoring an image: seconds, peak memory and multiplications, by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class CostMeter:
    """Adds up the seconds and notes the highest memory of named stages, which don't lie inside of each other.

    On a GPU the memory is what torch had allocated at most; on a CPU the whole process' peak, on Linux only. The GPU is waited
    for around each stage, so that the stages add up; the waiting costs a little itself.

    Attributes:
        seconds: Seconds by stage.
        peak_bytes: Peak memory by stage; empty where the system doesn't report it.
        macs: Multiply-accumulates by stage, of what runs inside :meth:`counting`.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}
        self.macs: dict[str, int] = {}
        self._counter: FlopCounterMode | None = None

    def reset(self) -> None:
        """Forget what was measured."""
        self.seconds, self.peak_bytes, self.macs = {}, {}, {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the multiply-accumulates of the stages in the body: matrix products, convolutions and attention.

        Counting slows the stages down, so their seconds are worth nothing then.
        """
        # torch knows the attention of GPUs only.
        own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
        try:
            with FlopCounterMode(display=False, custom_mapping=own) as self._counter:
                yield
        finally:
            self._counter = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the body."""
        self._reset_peak()
        counted = self._counter.get_total_flops() if self._counter is not None else 0
        start = time.perf_counter()
        yield
        if self._counter is not None:
            self.macs[name] = self.macs.get(name, 0) + (self._counter.get_total_flops() - counted) // 2
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        peak = self._peak()
        if peak is not None:
            self.peak_bytes[name] = max(peak, self.peak_bytes.get(name, 0))

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):  # elsewhere than on Linux
                _CLEAR.write_text("5")

    def _peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Return two per multiply-accumulate of the two products of an attention, from the shapes ``(B, heads, N, D)``."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[-2] * (width + value[-1])


def summary(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median seconds of each stage over images, and the highest peak; the first image warms up and is left out."""
    later = costs[1:] or costs
    stages = list(dict.fromkeys(stage for cost in costs for stage in cost["seconds"]))
    peaks = [peak for cost in costs for peak in cost["peak_bytes"].values()]
    return {
        "median_seconds": {stage: median(cost["seconds"].get(stage, 0.0) for cost in later) for stage in stages},
        "peak_bytes": {stage: max(cost["peak_bytes"].get(stage, 0) for cost in costs) for stage in stages if peaks},
        "images": len(later),
    }
