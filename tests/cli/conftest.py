from __future__ import annotations

from pathlib import Path

import torch


def fresh_process_modules(code: str) -> set[str]:
    """Run ``code`` in a fresh interpreter; returns the names of what it loaded."""
    import subprocess
    import sys

    code = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files too."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def euler_by_hand(velocity, x: torch.Tensor, steps: int) -> torch.Tensor:
    """From noise at t = 1 to data at t = 0 on an even grid, written out."""
    with torch.no_grad():
        for k in range(steps, 0, -1):
            x = x - velocity(x, torch.full((len(x),), k / steps)) / steps
    return x
