"""Prints what a training will minimize before it begins, so that a missing term is seen at once."""

from __future__ import annotations

from typing import Any

from torch import nn


def losses_of(module: Any) -> list[tuple[str, float, str]]:
    """Return (name, weight, what it is) of the objective and of every term of a :class:`fluxsr.training.OneStepSR`."""
    objective = type(module.objective).__name__
    if module.distance is not None:
        objective += f", distance {type(module.distance).__name__}"
    lines = [("flow", float(module.flow_weight), objective)]
    for name, term in module.losses.items():
        what = [type(getattr(term, "loss", term)).__name__]
        if getattr(term, "crop", None) is not None:
            what.append(f"crops of {term.crop}")
        if getattr(term, "every", 1) > 1:
            what.append(f"every {term.every} steps")
        lines.append((name, float(getattr(term, "weight", 1.0)), ", ".join(what)))
    if module.adversary is not None:
        lines.append(("adversarial", float(module.adversary.weight), type(module.adversary).__name__))
    return lines


def announce(module: nn.Module) -> None:
    """Print the objective and the terms to stderr, one short line each."""
    from rich.console import Console
    from rich.table import Table

    table = Table("term", "weight", "", box=None, pad_edge=False, header_style="bold")
    for name, weight, what in losses_of(module):
        table.add_row(name, f"{weight:g}" if weight else "0: off", what)
    Console(stderr=True).print(table)
