"""Makes a command of a function: its options are the function's parameters, its help the docstring."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

from fluxsr.cli._support.messages import meant
from fluxsr.cli._support.signatures import Parameter, import_function, read_signature

_SHOWN = {int: "N", float: "X"}
# Wide enough for an option and its help on one line; narrower where the terminal is.
_WIDEST = 110


@dataclass(frozen=True)
class Command:
    """A command whose options are parameters of functions.

    A parameter without default is required. ``-`` and ``_`` in names are the same; a ``bool`` is ``--name`` and ``--no-name``,
    or ``--name=true``; a sequence takes several values; ``null`` and ``off`` are None. The first function's docstring begins
    the help. Where two have a parameter of one name, it is the first one's, with the first words that there are.
    """

    name: str  # what follows `fluxsr`
    functions: tuple[str, ...]  # package.module:name of each
    examples: str  # lines of a shell
    notes: str = ""  # what follows the options in the help
    usage: str = ""  # follows the name in the help, instead of the required options
    positional: str = ""  # the parameter whose values stand without a name
    values: Mapping[str, Callable[[str], Any]] = field(
        default_factory=dict
    )  # texts that are read in a way of their own
    shown: Mapping[str, str] = field(default_factory=dict)  # what the help calls the value of a parameter
    exclusive: tuple[str, ...] = ()  # parameters of which one may be given
    hidden: frozenset[str] = frozenset()  # parameters that are no options

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter that is an option."""
        found: dict[str, Parameter] = {}
        for one in (one for path in self.functions for one in read_signature(path)[1].values()):
            if one.name not in self.hidden and (one.kinds or one.choices):
                one = one._replace(many=one.many and one.name not in self.values)
                first = found.get(one.name, one)
                found[one.name] = first if first.help else first._replace(help=one.help)
        return found

    def run(self, arguments: Sequence[str], **further: Any) -> Any:
        """Parse ``arguments`` and call the first function with them, and with what is passed on beside them."""
        options = self.parse(arguments)
        return import_function(self.functions[0])(**options, **further)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return a value for each parameter; ``--help`` prints, and ends the program."""
        mark = [*arguments, "--"].index("--")
        given, left = self.parse_known(arguments[:mark])
        for one in left:
            if one.startswith("-") and one != "-":
                name = one.partition("=")[0]
                near = meant(name.replace("-", "_").replace("__", "--", 1), [f"--{key}" for key in self.parameters])
                self._parser.error(f"{name}: there is no such option{near}")
        plain = [*left, *arguments[mark + 1 :]]
        if plain and not self.positional:
            self._parser.error(f"there is no argument {plain[0]!r}")
        options = {name: one.default for name, one in self.parameters.items()} | given
        if plain:
            options[self.positional] = plain
        missing = [self._usage_of(one).split()[0] for one in self._required if options[one.name] is None]
        if missing:
            self._parser.error(f"required and not given: {', '.join(missing)}")
        return options

    def parse_known(self, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the options that are given, and the arguments that are none of this command's, in their order."""
        given, left = self._parser.parse_known_args(list(map(self._spelled, arguments)))
        return vars(given), left

    @cached_property
    def _parser(self) -> _Parser:
        usage = self.usage or " ".join([*map(self._usage_of, self._required), "[options]"])
        shown = textwrap.indent(textwrap.dedent(self.examples).strip(), "  ")
        what = read_signature(self.functions[0])[0]
        parser = _Parser(
            self.name, [flow(what), f"usage: fluxsr {self.name} {usage}", f"examples:\n{shown}"], flow(self.notes)
        )
        group = parser.add_mutually_exclusive_group()
        for one in self.parameters.values():
            if one.name == self.positional:
                parser.positional = argparse.Action([], one.name, metavar=self._shown(one), help=one.help.rstrip("."))
                continue
            names = ["-o"] * (one.name == "output") + [f"--{one.name}"] + [f"--no-{one.name}"] * (one.default is True)
            several: dict[str, Any] = {"nargs": "+", "action": "extend"} if one.many else {}
            (group if one.name in self.exclusive else parser).add_argument(
                *names, type=self._reader(one), metavar=self._shown(one), help=_words(one), **several
            )
        return parser

    def _reader(self, one: Parameter) -> Callable[[str], Any]:
        own = self.values.get(one.name, one.read)

        def read(text: str) -> Any:
            try:
                return own(text)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None

        return read

    def _is_flag(self, name: str) -> bool:
        return name in self.parameters and self.parameters[name].kinds == [bool]

    def _shown(self, one: Parameter) -> str:
        if self._is_flag(one.name):
            return ""
        kinds = [_SHOWN[kind] for kind in one.kinds if kind in _SHOWN]
        value = self.shown.get(one.name) or "|".join([*kinds, *map(str, one.choices)]) or one.name.upper()
        return f"{value} ..." if one.many or one.name == self.positional else value

    def _usage_of(self, one: Parameter) -> str:
        return self._shown(one) if one.name == self.positional else f"--{one.name} {self._shown(one)}"

    @property
    def _required(self) -> list[Parameter]:
        return [one for one in self.parameters.values() if one.required]

    def _spelled(self, argument: str) -> str:
        """Return an option as the parser knows it: with underscores, and a flag with its value."""
        name, sign, value = argument.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--"):
            return argument
        if not sign and self._is_flag(key):
            return f"--{key}=true"
        if not sign and self._is_flag(key.removeprefix("no_")):
            return f"--{key.removeprefix('no_')}=false"
        return f"--{key}{sign}{value}" if key in self.parameters else argument

    def help(self) -> str:
        """Return the page: what it does, usage, examples, options, notes."""
        return self._parser.format_help()


def flow(text: str) -> str:
    """Wrap paragraphs to the page; those with lines that begin with a space keep their shape."""
    blocks = textwrap.dedent(text).strip("\n").split("\n\n")
    return "\n\n".join(
        block if any(line.startswith(" ") for line in block.splitlines()) else textwrap.fill(block, _width())
        for block in blocks
    )


def _width() -> int:
    return max(60, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))


def _words(one: Parameter) -> str:
    """Return the help of an option, with its default."""
    words, default = one.help.rstrip("."), one.default
    if default is True:
        words += f" (default: --{one.name})"
    elif default is not False and default not in (None, "", ()) and "default" not in words:
        text = f"{default:g}" if isinstance(default, float) else str(default)
        words += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else text})"
    return words.replace("%", "%%")


class _Parser(argparse.ArgumentParser):
    """Parses options, and prints a page about them; what is wrong with them is an error of one line."""

    positional: argparse.Action | None = None  # what stands without a name

    def __init__(self, command: str, before: list[str], notes: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        self.add_argument("-h", "--help", action="help", help="show this page and stop")
        self._command, self._before, self._notes = command, before, notes

    def format_help(self) -> str:
        formatter = _Formatter("", max_help_position=28, width=_width())
        for title, actions in (("arguments", [self.positional]), ("options", self._actions)):
            formatter.start_section(title)
            formatter.add_arguments([action for action in actions if action is not None])
            formatter.end_section()
        return "\n\n".join(filter(None, [*self._before, formatter.format_help().strip(), self._notes])) + "\n"

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.removeprefix('argument ')} (`fluxsr {self._command} --help` lists the options)")


class _Formatter(argparse.HelpFormatter):
    """Shows an option's value once, after its names."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return " ".join(filter(None, [", ".join(action.option_strings), str(action.metavar or "")]))

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar)
