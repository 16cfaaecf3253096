"""What the commands share: their parsers and help, and a function's signature as options."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentParser
from collections.abc import Callable, Collection, Sequence
from inspect import Parameter, signature
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from fluxsr.cli.configs import Configuration, dotted, take_configs
from fluxsr.cli.explain import explain
from fluxsr.cli.main import fail
from fluxsr.cli.pages import page
from fluxsr.cli.suggest import options_of, other_spelling, suggestion

NO_FILES = Configuration([], {})
_HELP = "show this page and stop"


def one_line_errors(
    parser: Any,
    configuration: Callable[[], Configuration] = lambda: NO_FILES,
    further: Collection[str] = (),
    command: str = "",
) -> None:
    """Make a parser end with the error alone: the usage of a command with a hundred options would hide it.

    Where an option was mistyped, the error is what it was meant to be. An option may be written with ``-`` or ``_``.

    Args:
        parser: of argparse or jsonargparse.
        configuration: returns the files that were given; their keys are options too.
        further: options that are read before the parser sees the arguments.
        command: whose help the errors point to, where it isn't the parser's own.
    """
    typed = sys.argv[1:]

    def known() -> set[str]:
        return {*options_of(parser), *(f"--{key}" for key in dotted(configuration().merged)), *further}

    def respelled(parse: Callable[..., Any]) -> Callable[..., Any]:
        def parse_respelled(args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
            if args:  # jsonargparse parses an empty list for its defaults
                names = known()
                args = typed[:] = [other_spelling(argument, names) for argument in args]
            return parse(args, *rest, **options)

        return parse_respelled

    def error(message: str, ex: Exception | None = None) -> NoReturn:
        name = command or parser.prog.replace(" [options]", "")
        name = f"{name} {typed[0]}" if name == "fluxsr" and typed else name
        options = [argument for argument in typed if "\n" not in argument]  # the files' content is one of them
        told = suggestion(message, options, known()) or explain(message, configuration(), options)
        fail(f"{told} (`{name} --help` lists the options)" if "option" in told or "--" in told else told)

    parser.parse_args, parser.parse_known_args = respelled(parser.parse_args), respelled(parser.parse_known_args)
    parser.error = error


class _Parser(ArgumentParser):
    """argparse's, with the help of :mod:`fluxsr.cli.pages`."""

    texts: tuple[str, str, str, str]

    def format_help(self) -> str:
        """Return the page."""
        return page(self, *self.texts)


def argument_parser(name: str, what: str, usage: str, examples: str, notes: str = "") -> ArgumentParser:
    """Return the parser of a command whose options are no function's signature.

    Args:
        name: of the command.
        what: it does; the first paragraph of its help.
        usage: what follows the name, for example ``IN ... -o OUT [options]``.
        examples: lines of a shell.
        notes: what follows the options.
    """
    parser = _Parser(prog=f"fluxsr {name}", allow_abbrev=False, add_help=False)
    parser.texts = (what, f"fluxsr {name} {usage}", examples, notes)
    parser.add_argument("-h", "--help", action="help", help=_HELP)
    one_line_errors(parser)
    return parser


def run(
    function: Callable[..., Any], name: str, arguments: list[str], examples: str, notes: str = "", **fixed: Any
) -> Any:
    """Parse ``arguments`` by the signature and docstring of ``function`` (jsonargparse), and call it.

    A parameter without default is required. ``--config FILE`` reads the options from YAML. What is
    ``fixed`` is passed on, and no option.
    """
    import jsonargparse

    configuration, rest = take_configs(arguments)
    parser = jsonargparse.ArgumentParser(prog=f"fluxsr {name}", allow_abbrev=False)
    one_line_errors(parser, lambda: configuration)
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with these options")
    parser.add_function_arguments(function, as_group=False, skip=set(fixed))
    hints, parameters = get_type_hints(function), signature(function).parameters
    required = []
    for action in parser._actions:
        parameter = parameters.get(action.dest)
        if parameter is not None:
            describe(action, hints[action.dest], parameter.default)
            required += [f"{action.option_strings[0]} {action.metavar}"] if parameter.default is Parameter.empty else []
        elif action.option_strings[0] == "--print_config":
            action.metavar, action.nargs, action.help = None, 0, "print all options as YAML and stop"
        elif "--help" in action.option_strings:
            action.help = _HELP
    what = (function.__doc__ or "").split("\n\n    Args:")[0].replace("\n    ", "\n")
    usage = " ".join([f"fluxsr {name}", *required, "[options]"])

    def format_help(*_: Any) -> str:
        return page(parser, what, usage, examples, notes)

    parser.format_help = format_help  # type: ignore[assignment]
    configuration.check_keys({action.dest for action in parser._actions})
    given = [f"--config={configuration.text()}"] if configuration.files else []
    options = parser.parse_args([*given, *rest]).as_dict()
    options.pop("config", None)
    return function(**options, **fixed)


def describe(action: Action, hint: Any, default: Any) -> None:
    """Name the kind of value that an option takes, and its default."""
    kinds = [kind for kind in (get_args(hint) if get_origin(hint) not in (None, Literal) else [hint]) if kind]
    choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    names = {int: "N", float: "X", bool: "true|false"}
    action.metavar = "|".join(choices) or next((names[kind] for kind in kinds if kind in names), action.dest.upper())
    action.help = (action.help or "").rstrip(".")
    if default not in (None, "", Parameter.empty):
        shown = str(default).lower() if isinstance(default, bool) else default
        action.help += f" (default: {shown})"
