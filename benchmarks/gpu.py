"""All that needs a GPU, and a page of results with the device's name: the tests marked ``gpu``, then a benchmark.

    make gpu                                       # or: python -m benchmarks.gpu [--output outputs/gpu] [--minutes 8.5]

The benchmark is benchmarks.architecture, of each of MODELS. Writes OUTPUT/DEVICE.md, and beside it the tests' results as XML
and the benchmarks' as JSON. Exit code: 0, 1 if a test failed, 2 where there is no GPU. A rung that fails is a row that says so.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from fluxsr.atomic import write_text

ROOT = Path(__file__).parent.parent
# What is measured, the one that most people train first.
MODELS = ("flux.2-klein-base-4b", "flux.1-dev")


class Tested(NamedTuple):
    """One test: its name, what became of it (passed, failed or skipped), its seconds, and the first line of why."""

    name: str
    outcome: str
    seconds: float
    why: str = ""


def run_tests(results: Path) -> list[Tested]:
    """Run the tests that need a GPU, showing their output; ``results`` becomes pytest's XML file."""
    results.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        f"--junit-xml={results.resolve()}",
    ]
    ended = subprocess.run([*command, "tests"], cwd=ROOT, check=False)
    if not results.is_file():
        return [Tested("pytest", "failed", 0.0, f"it ended with code {ended.returncode}, before any test")]
    return read_tests(results) or [Tested("pytest", "failed", 0.0, "there were no tests marked gpu")]


def read_tests(results: Path) -> list[Tested]:
    """Read pytest's XML file."""
    found = []
    for case in ElementTree.parse(results).iter("testcase"):
        bad = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if bad is None else "skipped" if bad.tag == "skipped" else "failed"
        why = "" if bad is None else next(iter((bad.get("message") or "").splitlines()), "")
        name = f"{case.get('classname')}.{case.get('name')}"
        found.append(Tested(name, outcome, float(case.get("time") or 0), why))
    return found


def page(device: str, tested: Sequence[Tested], measured: str) -> str:
    """Return the page in Markdown.

    Args:
        device: Its name.
        tested: The tests.
        measured: What the benchmark says, in Markdown.
    """
    lines = [f"# {device}", "", "`make gpu`, on this device alone.", "", "## Tests", ""]
    lines += ["| test | outcome | seconds |", "|---|---|---|"]
    for one in tested:
        why = f": {one.why.replace('|', '/')}" if one.why else ""
        outcome = one.outcome if one.outcome == "passed" else f"**{one.outcome}**{why}"
        lines.append(f"| {one.name} | {outcome} | {one.seconds:.1f} |")
    return "\n".join([*lines, "", "## Architectures with random weights", "", measured])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"), help="folder of the page")
    parser.add_argument("--minutes", type=float, default=8.5, help="after so many a benchmark begins no row")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("make gpu: there is no CUDA device here, and all of it needs one", file=sys.stderr)
        raise SystemExit(2)
    from benchmarks import architecture

    device = torch.cuda.get_device_name()
    name = re.sub(r"\W+", "-", device.lower()).strip("-")
    options.output.mkdir(parents=True, exist_ok=True)
    tested = run_tests(options.output / f"{name}-tests.xml")
    reports = [architecture.run(options.output / f"{name}-{model}", model, minutes=options.minutes) for model in MODELS]
    path = options.output / f"{name}.md"
    write_text(path, page(device, tested, "\n".join(report.markdown() for report in reports)))
    print(path)
    if any(one.outcome == "failed" for one in tested):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
