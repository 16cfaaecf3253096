"""Runs ``fluxsr configs``: it lists the configurations that come with the package, or copies one of them."""

from __future__ import annotations

from pathlib import Path

from fluxsr.atomic import write_text
from fluxsr.cli._support.command import Command
from fluxsr.cli._support.messages import ResultLines, meant
from fluxsr.shipped_configs import headline, shipped_configs

COMMAND = Command(
    "configs",
    ("fluxsr.cli.configs:configs",),
    usage="[NAME] [options]",
    examples="""
    fluxsr configs                                   # list them
    fluxsr configs fluxsr_nano --output mine.yaml    # a copy to edit
    fluxsr fit --config mine.yaml --config memory/48gb
    """,
    notes="`--config NAME` takes each of them by its name; a file of that name in the current folder takes precedence.",
    positional="name",
    shown={"name": "NAME", "output": "FILE"},
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    COMMAND.run(arguments)


def configs(name: list[str] | None = None, *, output: str | None = None) -> None:
    """List the configurations that come with the package, or copy one of them.

    Args:
        name: One of them; without --output it is printed.
        output: File to copy it to; an existing file is not replaced.

    Raises:
        ValueError: If there is no such configuration, or ``output`` is there already.
    """
    known = shipped_configs()
    if not name:
        if output is not None:
            raise ValueError("--output names no configuration to copy: `fluxsr configs NAME --output FILE`")
        width = max(map(len, known)) + 2
        lines = ResultLines()  # which may be cut off, as by `| head`
        for one, path in known.items():
            lines.print(f"{one:<{width}}{headline(path)}")
        return
    if len(name) > 1:
        raise ValueError(f"NAME: takes one name, got {len(name)}: {', '.join(name)}")
    wanted = name[0].removesuffix(".yaml")
    if wanted not in known:
        near = meant(wanted, known, other=f"; there are: {', '.join(known)}")
        raise ValueError(f"there is no configuration {name[0]!r}{near}")
    text = known[wanted].read_text("utf-8")
    if output is None:
        print(text, end="")
        return
    if Path(output).expanduser().exists():
        raise ValueError(f"--output {output}: is there already: give another name, or remove it first")
    write_text(Path(output).expanduser(), text)
    print(f"{output}: a copy of {wanted}; `fluxsr fit --config {output}` trains with it")
