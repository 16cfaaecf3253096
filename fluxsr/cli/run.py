"""What the commands share: a function's signature as its options, and a progress bar."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from fluxsr.cli.main import fail
from fluxsr.cli.suggest import suggestion


def one_line_errors(parser: Any) -> None:
    """Make a parser end with the error alone: the usage of a command with a hundred options would hide it.

    Where an option was mistyped, the error is what it was meant to be.
    """

    parse, typed = parser.parse_known_args, sys.argv[1:]

    def parse_known_args(args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        typed[:] = sys.argv[1:] if args is None else args or typed  # jsonargparse parses an empty list for its defaults
        return parse(args, *rest, **options)

    def error(message: str, ex: Exception | None = None) -> NoReturn:
        help_command = f"`{parser.prog.replace(' [options]', '')} --help`"
        fail(f"{suggestion(parser, typed) or message} ({help_command} lists the options)")

    parser.parse_known_args, parser.error = parse_known_args, error


def argument_parser(name: str, description: str, epilog: str | None = None, usage: str | None = None) -> ArgumentParser:
    """Return the parser of a command whose options are no function's signature; its texts keep their lines."""
    parser = ArgumentParser(
        prog=f"fluxsr {name}",
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    one_line_errors(parser)
    return parser


def run(function: Callable[..., Any], name: str, arguments: list[str]) -> Any:
    """Parse ``arguments`` by the signature and docstring of ``function`` (jsonargparse), and call it.

    A parameter without default is required. ``--config FILE`` reads the options from YAML.
    """
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=f"fluxsr {name}", description=(function.__doc__ or "").split("\n\n    Args:")[0]
    )
    one_line_errors(parser)
    parser.add_argument("--config", action="config", help="YAML file with these options")
    parser.add_function_arguments(function, as_group=False)
    options = parser.parse_args(arguments).as_dict()
    options.pop("config", None)
    return function(**options)


@contextmanager
def progress(text: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr during the body; yields ``advance(n)``. Says nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(text, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
