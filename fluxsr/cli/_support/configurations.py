"""Reads the files after ``--config``, checks them and merges them by key, before a parser sees them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from fluxsr.cli._support.class_arguments import class_arguments, class_named
from fluxsr.cli._support.messages import UsageError, nearest
from fluxsr.shipped_configs import config_path, shipped_configs

# Keys whose values are classes by a name of the user's own; null there takes a name away.
NAMED = (("model", "losses"), ("model", "val_losses"))
_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
# Sections that a file may keep in a file of their own: `data: data.yaml`.
_SECTIONS = ("model", "data", "trainer")
# Those that may name a class of the user's own.
_OWN = ("model", "data")
_CLASS_OPTIONS = {f"--{section}.class_path": section for section in _OWN}


class Configuration(NamedTuple):
    """What ``--config`` files say.

    Attributes:
        files: Each file's name, as it was typed, and its content, in the order given.
        merged: All of them, by key.
    """

    files: list[tuple[str, dict[str, Any]]]
    merged: dict[str, Any]

    def text(self) -> str:
        """Return the merged content as YAML."""
        import yaml

        return yaml.safe_dump(self.merged, sort_keys=False, allow_unicode=True, width=10**6)

    def source(self, key: str) -> str | None:
        """Return the last file that says something about a dotted key, ``None`` if none does; ``init_args`` may be left out."""
        wanted = key.replace(".init_args", "")
        said = (
            (name, {one.replace(".init_args", "") for one in dotted(content)}) for name, content in self.files[::-1]
        )
        return next((name for name, keys in said if wanted in keys), None)

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse a key that the command does not have.

        Raises:
            UsageError: Naming the file, the key and the one that was probably meant.
        """
        known = {name for name in known if name.rpartition(".")[2] not in ("help", "config", "print_config")}
        groups = {name.rsplit(".", count)[0] for name in known for count in range(1, name.count(".") + 1)}
        for name, content in self.files:
            for key in _unknown(content, known, groups):
                raise UsageError("there is no such key", f"{name}: {key}", nearest(key, {*known, *groups}))


def take_configs(arguments: list[str], sections: bool = True) -> tuple[Configuration, list[str]]:
    """Read the files after ``--config``, ``-c``; return their content and all other arguments.

    Files merge by key, the later one wins; a list is replaced as a whole.

    Args:
        arguments: Arguments of the command.
        sections: Whether ``model``, ``data`` and ``trainer`` are the sections of ``fluxsr fit``, and no plain values. Then
            ``--model.losses.NAME null`` among the arguments removes a term, as ``null`` in a file does. Where a file or an
            option gives ``model`` or ``data`` a ``class_path``, all its other keys become that class' ``init_args``.

    Raises:
        UsageError: If a file is missing or no mapping in YAML, or a term is changed that there isn't.
    """
    class_options = _CLASS_OPTIONS if sections else {}
    files: list[tuple[str, dict[str, Any]]] = []
    rest, left = [], iter(arguments)
    for argument in left:
        name, sign, value = argument.partition("=")
        if name not in ("--config", "-c", *class_options):
            rest.append(argument)
            continue
        value = value if sign else next(left, "")
        if not value:
            raise UsageError(f"names no {'class' if name in class_options else 'file'}: give one after it", name)
        if name in class_options:
            # A class among the options takes its turn among the files, so that what comes after it still overrides it.
            files.append((name, {class_options[name]: {"class_path": value}}))
        else:
            files.append((value, read_config(value, sections)))
    # One file may name the class of a section and another, older one give its keys plainly. All of them have to be below
    # init_args before the merge, or the same key would stand in two places.
    for section in _OWN if sections else ():
        if any(names_class(content.get(section)) for _, content in files):
            files = [(name, _below_init_args(content, section)) for name, content in files]
    merged: dict[str, Any] = {}
    for _, content in files:
        merged = merge(merged, content)
    for section, key in NAMED if sections else ():
        rest = _settle(merged, section, key, rest, files)
    return Configuration(files, merged), rest


def read_config(name: str, sections: bool = True) -> dict[str, Any]:
    """Return the content of a YAML file.

    Args:
        name: The file, or the name of a configuration that comes with the package.
        sections: Whether a text as ``model``, ``data`` or ``trainer`` is a file with that section, or its class.

    Raises:
        UsageError: Naming the file, and the line in it where there is one.
    """
    import yaml
    from jsonargparse import get_loader

    path = config_path(name)
    if path.is_dir():
        raise UsageError("is a folder: name a YAML file in it", f"--config {name}")
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        near = str(path.parent / near) if near else nearest(name.removesuffix(".yaml"), shipped_configs())
        hint = "" if near else ": check the path, which starts in this folder, or take a name of `fluxsr configs`"
        raise UsageError(f"there is no such file{hint}", f"--config {name}", near)
    try:
        text = path.read_text("utf-8")
        content = get_loader("yaml")(text)
        content = yaml.safe_load(text) if isinstance(content, str) else content  # it takes a lone `model:` for text
    except UnicodeDecodeError as error:
        raise UsageError("is no UTF-8 text: is it a YAML file?", name) from error
    except yaml.YAMLError as error:
        raise UsageError(_what_is_wrong(text, error), name) from error
    if content is None:
        raise UsageError(f"is empty: write keys into it, or leave --config {name} out", name)
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        raise UsageError(
            f"holds {kind}, where keys with values are wanted, such as `model:` and below it its keys", name
        )
    for key, value in dotted(content).items():
        if isinstance(value, dict) and "class_path" in value and (odd := [k for k in value if k not in _CLASS_KEYS]):
            near = nearest(str(odd[0]), _CLASS_KEYS)
            what = f"the key {odd[0]!r} stands beside class_path" + ("" if near else "; write it below init_args")
            raise UsageError(what, f"{name}: {key}", near)
    for section in _SECTIONS if sections else ():
        if isinstance(content.get(section), str) and (path.parent / content[section]).is_file():
            content[section] = read_config(str(path.parent / content[section]))
        elif section in _OWN and isinstance(content.get(section), str):
            content[section] = {"class_path": content[section]}
    return content


def merge(base: Any, change: Any) -> Any:
    """Return ``base`` with what ``change`` says, key by key.

    Where the class changes, the new one keeps the old one's ``init_args`` that it takes, as an option on the command line does.
    """
    # A class may be written short, as its path alone; both sides are brought to the long form before they are compared.
    if isinstance(base, Mapping) and "class_path" in base and isinstance(change, str) and class_named(change):
        change = {"class_path": change}
    if isinstance(base, str) and isinstance(change, Mapping) and "init_args" in change and "class_path" not in change:
        base = {"class_path": base}
    if not (isinstance(base, Mapping) and isinstance(change, Mapping)):
        return change
    new_class = change.get("class_path")
    if "class_path" in base and new_class not in (None, base["class_path"]):
        # Arguments that the new class lacks would be refused as unknown keys, though nobody wrote them for this class.
        found = class_named(new_class)
        taken = () if found is None else class_arguments(found)[0]
        kept = {key: value for key, value in (base.get("init_args") or {}).items() if key in taken}
        base = {"class_path": new_class, **({"init_args": kept} if kept else {})}
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in change.items()}}


def dotted(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return every key with its value, outer ones too, by its path with dots; in a list the path has the number."""
    found = {}
    for key, value in content.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, list):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            found |= dotted(value, f"{prefix}{key}.")
    return found


def _settle(
    merged: dict[str, Any], section: str, key: str, arguments: list[str], files: list[tuple[str, Any]]
) -> list[str]:
    """Take away the terms of ``section.key`` that are null, in files or arguments; return the arguments that are left."""
    group = f"{section}.{key}"
    holder: Any = merged.get(section)
    holder = (holder.get("init_args") or {}) if names_class(holder) else holder
    terms = holder.get(key) if isinstance(holder, dict) else None
    terms = terms if isinstance(terms, dict) else {}
    arguments = [re.sub(rf"^--{section}\.init_args\.{key}\b", f"--{group}", argument) for argument in arguments]
    names = {argument.partition("=")[0].removesuffix(".class_path") for argument in arguments}
    if f"--{group}" in names:  # the terms are given anew
        return arguments
    named, left, options = f"--{group}.", [], iter(arguments)
    for option in options:
        name, sign, value = option.partition("=")
        if not name.startswith(named):
            left.append(option)
            continue
        term, _, inner = name.removeprefix(named).partition(".")
        if not sign and (value := next(options, "")):
            option = f"{option}={value}"
        # An option may add a term if it also says the class. Without one it can only mean a term that is there: a mistyped
        # name would otherwise become a term without a class, and the parser's message would not name it.
        if term not in terms and (value in ("null", "~") or (inner and f"{named}{term}" not in names)):
            near = nearest(term, terms)
            there = "" if near else f"; there are: {', '.join(terms)}" if terms else "; there is none"
            raise UsageError(f"{group} has no term {term!r}{there}", name, near)
        if not inner and value in ("null", "~"):
            terms[term] = None
        else:
            left.append(option)
    for term, value in terms.items():
        if isinstance(value, dict) and "class_path" not in value:
            file = Configuration(files[::-1], {}).source(f"{group}.{term}") or ""
            near = nearest(term, [other for other in terms if other != term])
            what = "has no class_path, and no file before it has such a term" + (
                "" if near else "; write its class_path"
            )
            raise UsageError(what, f"{file}: {group}.{term}", near)
    # Only now: a later file may have brought a term back that an earlier one took away.
    for term in [term for term, value in terms.items() if value is None]:
        del terms[term]
    return left


def names_class(section: Any) -> bool:
    """Say whether a section of a configuration has a class of its own."""
    return isinstance(section, Mapping) and bool(section.get("class_path"))


def _below_init_args(content: dict[str, Any], section: str) -> dict[str, Any]:
    """Return a file's content with the plain keys of a section as ``init_args``: its class is named, here or elsewhere."""
    said = content.get(section)
    if not isinstance(said, Mapping) or _CLASS_KEYS & set(said):
        return content
    return {**content, section: {"init_args": dict(said)}}


def _unknown(content: Mapping[str, Any], known: Collection[str], groups: set[str], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in groups and isinstance(value, Mapping):
            yield from _unknown(value, known, groups, f"{key}.")
        elif key not in known and key not in groups:
            yield key


def _what_is_wrong(text: str, error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"is no YAML: {' '.join(str(error).split())}"
    line = (text.splitlines() or [""])[min(mark.line, text.count("\n"))] if text else ""
    if "\t" in line[: mark.column + 1]:
        return f"line {mark.line + 1}: a tab, where YAML wants spaces; replace it"
    return f"line {mark.line + 1}, column {mark.column + 1} is no YAML: {error.problem or error.context}"
