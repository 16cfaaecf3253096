"""What benchmarks.architecture measured, as JSON and as a Markdown table."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fluxsr.atomic import replacing

# Dense bfloat16 with float32 sums, 10^12 operations a second, as NVIDIA's data sheets and architecture papers state; longer
# names first.
STATED_TFLOPS = {
    "B200": 2250.0,
    "GH200": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
PACKAGES = ("torch", "diffusers", "peft", "lightning", "torchao", "bitsandbytes", "triton")


@dataclass
class StepRow:
    """A training step of one rung.

    Attributes:
        rung: its name.
        seconds: of a step, the median.
        peak_gib: of tensors, from step to step.
        reserved_gib: what the allocator took for them.
        planned_gib: the peak that ``fluxsr plan`` says.
        model_tflop: of a step, without recomputation.
        utilization: ``model_tflop / seconds`` over the device's stated peak.
        error: what went wrong.
    """

    rung: str
    seconds: float | None = None
    peak_gib: float | None = None
    reserved_gib: float | None = None
    planned_gib: float | None = None
    model_tflop: float | None = None
    utilization: float | None = None
    error: str | None = None


@dataclass
class LatencyRow:
    """One step of restoration of one image: seconds by stage, the median; the peak includes the weights."""

    model: str
    adapter: str | None = None
    encode: float | None = None
    transformer: float | None = None
    decode: float | None = None
    peak_gib: float | None = None
    reserved_gib: float | None = None
    error: str | None = None


@dataclass
class Report:
    """All rows, written to files whenever one is added.

    Args:
        output: path of the files without a suffix.
        model: Name of the architecture.
        machine: device, date and versions.
        peak_tflops: the device's stated peak; ``None``: unknown, and no utilization.
        tiny: whether the model was the tiny one, and the numbers mean nothing.
    """

    output: Path
    model: str
    machine: dict[str, Any]
    peak_tflops: float | None
    tiny: bool = False
    steps: list[StepRow] = field(default_factory=list)
    latencies: list[LatencyRow] = field(default_factory=list)

    def add(self, row: StepRow | LatencyRow) -> None:
        """Add a row, say so, and write all."""
        print(row, file=sys.stderr, flush=True)
        if isinstance(row, StepRow):
            self.steps.append(row)
        else:
            self.latencies.append(row)
        self.write()

    def write(self) -> None:
        """Write both files anew."""
        for row in self.steps:
            if row.seconds and row.model_tflop and self.peak_tflops:
                row.utilization = row.model_tflop / row.seconds / self.peak_tflops
        values = {key: value for key, value in asdict(self).items() if key != "output"}
        for suffix, text in ((".json", json.dumps(values, indent=2) + "\n"), (".md", self.markdown())):
            with replacing(self.output.with_name(self.output.name + suffix)) as path:
                path.write_text(text, encoding="utf-8")

    def markdown(self) -> str:
        """Return the tables."""
        versions = ", ".join(f"{name} {number}" for name, number in self.machine["versions"].items())
        size = (
            f"tiny {self.model}, 64x64: the numbers mean nothing"
            if self.tiny
            else f"{self.model}, random weights, 1024x1024"
        )
        peak = "unknown" if self.peak_tflops is None else f"{self.peak_tflops:g} TFLOP/s, dense bfloat16, as stated"
        lines = [
            f"{self.machine['device']}, {self.machine['date']}; {versions}",
            "",
            f"{size}. Utilization: model FLOPs, recomputation not counted, over {peak}.",
            "",
            "| training step | seconds | peak GiB | reserved GiB | planned GiB | model TFLOP | utilization |",
            "|---|---|---|---|---|---|---|",
        ]
        for step in self.steps:
            share = None if step.utilization is None else 100 * step.utilization
            cells = [
                number(step.seconds, 2), number(step.peak_gib, 1), number(step.reserved_gib, 1),
                number(step.planned_gib, 1), number(step.model_tflop, 1), number(share, 1, " %"),
            ]  # fmt: skip
            lines.append(f"| {step.rung}{note(step.error)} | {' | '.join(cells)} |")
        lines += [
            "",
            "| one-step inference | adapter | encode ms | transformer ms | decode ms | all ms | peak GiB |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.latencies:
            stages = [None if one is None else 1000 * one for one in (row.encode, row.transformer, row.decode)]
            whole = sum(one for one in stages if one is not None) if None not in stages else None
            cells = [row.adapter or "-", *(number(one, 1) for one in (*stages, whole, row.peak_gib))]
            lines.append(f"| {row.model}{note(row.error)} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def number(value: float | None, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def note(error: str | None) -> str:
    return "" if error is None else f": **{error.replace('|', '/')}**"


def stated_peak(device: str) -> float | None:
    """Return the TFLOP/s that a device's maker states, ``None`` for an unknown one."""
    return next((peak for name, peak in STATED_TFLOPS.items() if name in device), None)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the device's name, the date, and the versions of what counts."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {platform.machine()}"
    return {"device": name, "date": datetime.date.today().isoformat(), "versions": versions}
