"""Makes a command of a function: its options are the function's parameters, its help the docstring."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from fluxsr.cli._support.help_pages import PageParser
from fluxsr.cli._support.messages import meant
from fluxsr.cli._support.signatures import Parameter, import_function, read_signature
from fluxsr.cli._support.values import read_value

_SHOWN = {int: "N", float: "X"}


@dataclass(frozen=True)
class Command:
    """A command whose options are parameters of functions.

    A parameter without default is required. ``--name value`` and ``--name=value`` are the same, and so are ``-`` and ``_`` in
    names; a ``bool`` is ``--name`` and ``--no-name``, or ``--name=true``; a sequence takes several values; ``null`` and
    ``off`` are None.

    Args:
        name: What follows ``fluxsr``.
        functions: ``package.module:name`` of each; the first one's docstring begins the help. Where two have a parameter of
            one name, it is the first one's, with the first words that there are.
        examples: Lines of a shell.
        notes: What follows the options in the help.
        usage: Follows the name in the help, instead of the required options.
        positional: The parameter whose values stand without a name.
        values: Parameters whose texts are read in a way of their own, with the function that does so.
        shown: What the help calls the value of a parameter.
        exclusive: Parameters of which one may be given.
        hidden: Parameters that are no options.
        has_files: Whether ``--config`` reads options from YAML.
    """

    name: str
    functions: tuple[str, ...]
    examples: str
    notes: str = ""
    usage: str = ""
    positional: str = ""
    values: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    exclusive: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    has_files: bool = True

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
        """Return a value for each parameter; ``--help`` and ``--print_config`` print, and end the program.

        Raises:
            ValueError: For an option that there isn't, a value that can't be, a required option that is missing.
        """
        given = self._take(arguments)
        options = {name: one.default for name, one in self.parameters.items()}
        for file in given.pop("config", []):
            options |= self._take_file(file)
        printed = given.pop("print_config", False)
        options |= given
        if printed:
            import yaml

            print(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), end="")
            raise SystemExit(0)
        missing = [self._usage_of(one).split()[0] for one in self._required if options[one.name] is None]
        if missing:
            self._parser.error(f"required and not given: {', '.join(missing)}")
        return options

    def parse_known(self, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the options that are given, and the arguments that are none of this command's, in their order."""
        given, left = self._parser.parse_known_args(list(map(self._spelled, arguments)))
        return vars(given), left

    def _take(self, arguments: Sequence[str]) -> dict[str, Any]:
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
        return given | ({self.positional: plain} if plain else {})

    def _take_file(self, file: str) -> dict[str, Any]:
        """Return the options that a YAML file gives: each key is an option."""
        from fluxsr.cli._support.fit_files import read_config

        arguments, plain = [], []
        for key, value in read_config(file).items():
            texts = ["null" if one is None else str(one) for one in (value if isinstance(value, list) else [value])]
            if key == self.positional:
                plain = texts
            elif key in self.parameters and self.parameters[key].many:
                arguments += [f"--{key}", *texts]
            else:
                arguments.append(f"--{key}={','.join(texts)}")
        try:
            return self._take([*arguments, "--", *plain])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    @cached_property
    def _parser(self) -> PageParser:
        usage = self.usage or " ".join([*map(self._usage_of, self._required), "[options]"])
        what = read_signature(self.functions[0])[0]
        parser = PageParser(what, f"fluxsr {self.name} {usage}", self.examples, self.notes, self.name)
        if self.has_files:
            about = "YAML file with these options; given again, the later file wins"
            parser.add_argument("-c", "--config", metavar="FILE", action="append", help=about)
            parser.add_argument("--print_config", action="store_true", help="print all options as YAML and stop")
        group = parser.add_mutually_exclusive_group()
        for one in self.parameters.values():
            if one.name == self.positional:
                parser.positional = argparse.Action([], one.name, metavar=self._shown(one), help=one.help.rstrip("."))
            else:
                names = (
                    ["-o"] * (one.name == "output") + [f"--{one.name}"] + [f"--no-{one.name}"] * (one.default is True)
                )
                (group if one.name in self.exclusive else parser).add_argument(*names, **self._how(one))
        return parser

    def _how(self, one: Parameter) -> dict[str, Any]:
        """Return the arguments of ``add_argument``."""

        reader = self.values.get(one.name) or partial(read_value, one)

        def read(text: str) -> Any:
            try:
                return reader(text)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None

        words, default = one.help.rstrip("."), one.default
        if default is True:
            words += f" (default: --{one.name})"
        elif default is not False and default not in (None, "", ()) and "default" not in words:
            text = f"{default:g}" if isinstance(default, float) else str(default)
            words += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else text})"
        several = {"nargs": "+", "action": "extend"} if one.many else {}
        return {"type": read, "metavar": self._shown(one), "help": words.replace("%", "%%"), **several}

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
        return f"--{key}{sign}{value}" if key in {*self.parameters, "print_config"} else argument

    def help(self) -> str:
        """Return the page: what it does, usage, examples, options, notes."""
        return self._parser.format_help()
