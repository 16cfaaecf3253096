"""Parses the options of all commands, from the signatures and docstrings of the functions that they call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fluxsr.cli._support import renamed
from fluxsr.cli._support.configurations import Configuration, take_configs
from fluxsr.cli._support.help_pages import Entry, page
from fluxsr.cli._support.messages import UsageError, nearest
from fluxsr.cli._support.signatures import Parameter, Signature, import_function, read_signature
from fluxsr.cli._support.values import convert

_HELP = Entry(("-h", "--help"), "", "show this page and stop")
_FILES = (
    Entry(("--config",), "FILE", "YAML file with these options; given again, the later file wins"),
    Entry(("--print_config",), "", "print all options as YAML and stop"),
)


@dataclass(frozen=True)
class Command:
    """A command whose options are parameters of functions.

    A parameter without default is required. ``--name value`` and ``--name=value`` are the same, and so are ``-`` and ``_`` in
    names; a ``bool`` is ``--name`` and ``--no-name``, or ``--name=true``; a sequence takes several values.

    Args:
        name: What follows ``fluxsr``.
        functions: ``package.module:name`` of each; the first one's docstring begins the help. Where two have a parameter of
            one name, it is the first one's.
        examples: Lines of a shell.
        notes: What follows the options in the help.
        what: Begins the help instead of the docstring.
        usage: Follows the name in the help, instead of the required options.
        positional: The parameter whose values stand without a name.
        short: Parameters by a letter.
        values: Parameters whose texts are read in a way of their own, with the function that does so.
        shown: What the help calls the value of a parameter.
        exclusive: Pairs of parameters of which one may be given.
        hidden: Parameters that are no options.
        has_files: Whether ``--config`` reads options from YAML.
    """

    name: str
    functions: tuple[str, ...]
    examples: str
    notes: str = ""
    what: str = ""
    usage: str = ""
    positional: str = ""
    short: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    exclusive: tuple[tuple[str, str], ...] = ()
    hidden: frozenset[str] = frozenset()
    has_files: bool = True

    @cached_property
    def signatures(self) -> list[Signature]:
        """Those of the functions."""
        return [read_signature(path) for path in self.functions]

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter that is an option."""
        found: dict[str, Parameter] = {}
        for signature in self.signatures:
            found = {**signature.parameters, **found}
        order = [name for signature in self.signatures for name in signature.parameters]
        return {
            name: replace(found[name], many=found[name].many and name not in self.values)
            for name in dict.fromkeys(order)
            if name not in self.hidden
        }

    @property
    def names(self) -> set[str]:
        """The options with their dashes."""
        return {f"--{name}" for name in self.parameters if name != self.positional}

    def run(self, arguments: Sequence[str], **further: Any) -> Any:
        """Parse ``arguments`` and call the first function with them, and with what is passed on beside them."""
        options = self.parse(arguments)
        return import_function(self.functions[0])(**options, **further)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return a value for each parameter; ``--help`` and ``--print_config`` print, and end the program.

        Raises:
            UsageError: For an option that there isn't, a value that can't be, a required option that is missing.
        """
        configuration, rest = (
            take_configs(list(arguments), False) if self.has_files else (Configuration([], {}), arguments)
        )
        options, left, wants = self._read(list(rest))
        if wants == "help":
            print(self.help(), end="")
            raise SystemExit(0)
        if left:
            raise self._unknown(left[0])
        configuration.check_keys(self.parameters)
        for key, value in configuration.merged.items():
            if key not in options:
                options[key] = self._convert(self.parameters[key], value, f"{configuration.source(key)}: {key}")
        if wants == "print_config":
            import yaml

            print(yaml.safe_dump(self._with_defaults(options), sort_keys=False, allow_unicode=True), end="")
            raise SystemExit(0)
        missing = [name for name, one in self.parameters.items() if one.required and name not in options]
        if missing:
            raise UsageError(f"required and not given: {', '.join(map(self._shown_name, missing))}")
        return self._with_defaults(options)

    def parse_known(self, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Return a value for each parameter, and the arguments that are another command's, in their order."""
        options, left, wants = self._read(list(arguments), leave=True)
        if wants == "help":
            print(self.help(), end="")
            raise SystemExit(0)
        return self._with_defaults(options), left

    def _with_defaults(self, options: dict[str, Any]) -> dict[str, Any]:
        return {name: options.get(name, one.default) for name, one in self.parameters.items()}

    def _read(self, arguments: list[str], leave: bool = False) -> tuple[dict[str, Any], list[str], str]:
        """Return the options given, the arguments that are none, and whether help or the configuration is wanted."""
        options: dict[str, Any] = {}
        left: list[str] = []
        plain: list[str] = []
        wants = ""
        while arguments:
            argument = arguments.pop(0)
            name, sign, value = argument.partition("=")
            if argument == "--" and not leave:
                plain += arguments
                break
            if not _is_option(argument):
                (left if leave or not self.positional else plain).append(argument)
                continue
            if name in ("-h", "--help", "--print_config") and not (leave and name == "--print_config"):
                wants = wants or ("help" if "h" in name else "print_config")
                continue
            key = self.short.get(name.removeprefix("-"), "") or name.removeprefix("--").replace("-", "_")
            negated = key.startswith("no_") and self._is_flag(key.removeprefix("no_")) and not sign
            key = key.removeprefix("no_") if negated else key
            if key not in self.parameters or key == self.positional:
                left.append(argument)
                continue
            one = self.parameters[key]
            if self._is_flag(key):
                texts = [value] if sign else ["false" if negated else "true"]
            elif sign:
                texts = [value]
            else:
                texts = []
                while arguments and not _is_option(arguments[0]) and (one.many or not texts):
                    texts.append(arguments.pop(0))
                if not texts:
                    raise UsageError("no value is given: write one after it", name)
            read = self._convert(one, texts if one.many else texts[0], name)
            options[key] = [*options.get(key, []), *read] if one.many else read
        if plain:
            options[self.positional] = plain
        for first, second in self.exclusive:
            if options.get(first) and options.get(second):
                raise UsageError(f"not together with {self._shown_name(first)}", self._shown_name(second))
        return options, left, wants

    def _is_flag(self, name: str) -> bool:
        return name in self.parameters and self.parameters[name].kinds == (bool,)

    def _convert(self, one: Parameter, value: Any, where: str) -> Any:
        if one.many:
            values = value if isinstance(value, list) else [value]
            return [convert(each, one.kinds, one.choices, False, where, self.values.get(one.name)) for each in values]
        return convert(value, one.kinds, one.choices, one.optional, where, self.values.get(one.name))

    def _unknown(self, argument: str) -> UsageError:
        name = argument.partition("=")[0]
        if not _is_option(argument):
            flag = " (true and false are written --name and --no-name)" if name in ("true", "false") else ""
            return UsageError(f"there is no argument {argument!r}{flag}")
        key = name.removeprefix("--").replace("-", "_")
        if (self.name, key) in renamed.OPTIONS:
            return UsageError("was renamed", name, f"--{renamed.OPTIONS[self.name, key]}")
        known = {spelled for one in self.names for spelled in (one, one.replace("_", "-").replace("---", "--"))}
        return UsageError("there is no such option", name, self._spell(nearest(name, known)))

    def _spell(self, option: str) -> str:
        return option and f"--{option.removeprefix('--').replace('-', '_')}"

    def _shown_name(self, name: str) -> str:
        return self.shown.get(name, name.upper()) if name == self.positional else f"--{name}"

    def help(self) -> str:
        """Return the page."""
        entries = [self._entry(one) for one in self.parameters.values()]
        required = [
            f"{entry.names[-1] if entry.names else ''} {entry.value}".strip()
            for entry, one in zip(entries, self.parameters.values(), strict=True)
            if one.required
        ]
        usage = self.usage or " ".join([*required, "[options]"])
        what = self.what or self.signatures[0].what
        entries = [_HELP, *(_FILES if self.has_files else ()), *entries]
        return page(entries, what, f"fluxsr {self.name} {usage}", self.examples, self.notes)

    def _entry(self, one: Parameter) -> Entry:
        choices = "|".join(map(str, one.choices))
        kinds = {int: "N", float: "X"}
        value = (
            self.shown.get(one.name) or choices or next((kinds[k] for k in one.kinds if k in kinds), one.name.upper())
        )
        value = "" if self._is_flag(one.name) else f"{value} ..." if one.many else value
        if one.name == self.positional:
            return Entry((), value, one.help.rstrip("."))
        letter = [f"-{letter}" for letter, name in self.short.items() if name == one.name]
        names = [f"--{one.name}"]
        words, default = one.help.rstrip("."), one.default
        if self._is_flag(one.name) and default:
            names.append(f"--no-{one.name}")
            words += f" (default: --{one.name})"
        if default not in (None, "", ()) and not isinstance(default, bool) and "default" not in words:
            text = f"{default:g}" if isinstance(default, float) else str(default)
            words += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else text})"
        return Entry((*letter, *names), value, words)


def _is_option(argument: str) -> bool:
    """Say whether an argument is an option, and no value such as ``-1``, ``-`` or a file's text."""
    return argument.startswith("-") and len(argument) > 1 and not argument[1:2].isdigit() and argument[1:2] != "."
