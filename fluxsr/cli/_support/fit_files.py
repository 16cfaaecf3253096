"""Reads the files after ``--config`` and merges them by key, before a parser sees them."""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fluxsr.cli._support.messages import meant
from fluxsr.shipped_configs import config_path, shipped_configs

_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
# Sections that may name a class of the user's own.
_OWN = ("model", "data")
_CLASS_OPTIONS = {f"--{section}.class_path": section for section in _OWN}
# Keys whose values are classes by a name of the user's own; null there takes a name away.
_TERMS = ("losses", "val_losses")
_TERM_OPTION = re.compile(rf"--model\.(?:init_args\.)?({'|'.join(_TERMS)})\.([^.]+)(.*)")


class Configuration(NamedTuple):
    """What ``--config`` files say: each with its name as it was typed, and all of them merged by key."""

    files: list[tuple[str, dict[str, Any]]]
    merged: dict[str, Any]

    def place(self, group: str, name: str, value: str | None = None) -> str:
        """Return the last file with a key of this group and name, and the key; only one with this value, or class, if given."""
        for file, content in self.files[::-1] if name else ():
            for key, found in dotted(content).items():
                said = found.get("class_path") if isinstance(found, Mapping) else found
                if key.startswith(group) and f".{key}".endswith(f".{name}") and value in (None, str(said)):
                    return f"{file}: {key}"
        return ""


def take_configs(arguments: list[str]) -> tuple[Configuration, list[str]]:
    """Read the files after ``--config``; return their content and all other arguments.

    Files merge by key, the later one wins; a list is replaced as a whole. ``null`` removes a term of ``model.losses``, in a
    file or as an option. Where a file or an option gives ``model`` or ``data`` a ``class_path``, all its other keys become
    that class' ``init_args``.
    """
    files: list[tuple[str, dict[str, Any]]] = []
    rest, left = [], iter(arguments)
    for argument in left:
        name, sign, value = argument.partition("=")
        if name not in ("--config", "-c", *_CLASS_OPTIONS):
            rest.append(argument)
            continue
        value = value if sign else next(left, "")
        if not value:
            raise ValueError(f"{name}: no value is given: write one after it")
        if name in _CLASS_OPTIONS:
            # A class among the options takes its turn among the files, so that what comes after it still overrides it.
            files.append((name, {_CLASS_OPTIONS[name]: {"class_path": value}}))
        else:
            files.append((value, _read_sections(value)))
    # One file may name the class of a section and another, older one give its keys plainly. All of them have to be below
    # init_args before the merge, or the same key would stand in two places.
    for section in _OWN:
        if any(names_class(content.get(section)) for _, content in files):
            files = [(name, _below_init_args(content, section)) for name, content in files]
    merged: dict[str, Any] = {}
    for _, content in files:
        merged = merge(merged, content)
    configuration = Configuration(files, merged)
    return configuration, _settle_terms(configuration, rest)


def read_config(name: str) -> dict[str, Any]:
    """Return the content of a YAML file, or of a configuration that comes with the package, by its name."""
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = config_path(name)
    if not path.exists():
        known = [*(str(path.parent / file.name) for file in path.parent.glob("*.y*ml")), *shipped_configs()]
        other = ": check the path, which starts in this folder, or take a name of `fluxsr configs`"
        raise ValueError(f"--config {name}: there is no such file{meant(name, known, other)}")
    try:
        content = OmegaConf.load(path)
    except IsADirectoryError:
        raise ValueError(f"--config {name}: is a folder: name a YAML file in it") from None
    except (ValueError, OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{name}: is no YAML: {error}") from error
    if not isinstance(content, DictConfig) or not content:
        raise ValueError(f"{name}: holds no keys with values, such as `model:` and below it its keys")
    return dict(OmegaConf.to_container(content))  # type: ignore[arg-type]


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
        taken = _arguments_of(new_class) if base.get("init_args") else ()
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


def names_class(section: Any) -> bool:
    """Whether a section of a configuration has a class of its own."""
    return isinstance(section, Mapping) and bool(section.get("class_path"))


def class_named(path: Any) -> Any:
    """Return the class or function of a dotted name, ``None`` where there is none: the parser says so itself."""
    try:
        return pydoc.locate(str(path))
    except pydoc.ErrorDuringImport:
        return None


def _arguments_of(path: str) -> set[str]:
    """Return what a class or function takes, those classes included that it hands its ``**kwargs`` to."""
    from jsonargparse import ArgumentParser

    found, parser = class_named(path), ArgumentParser()
    if found is None:
        return set()
    add = parser.add_class_arguments if inspect.isclass(found) else parser.add_function_arguments
    return set(add(found, fail_untyped=False))


def _read_sections(name: str) -> dict[str, Any]:
    content = read_config(name)
    for section in _OWN:
        if isinstance(content.get(section), str):
            content[section] = {"class_path": content[section]}
    for key, value in dotted(content).items():
        odd = value.keys() - _CLASS_KEYS if isinstance(value, dict) and "class_path" in value else ()
        for one in sorted(odd)[:1]:
            near = meant(one, _CLASS_KEYS, "; write it below init_args")
            raise ValueError(f"{name}: {key}: the key {one!r} stands beside class_path{near}")
    return content


def _below_init_args(content: dict[str, Any], section: str) -> dict[str, Any]:
    said = content.get(section)
    if not isinstance(said, Mapping) or _CLASS_KEYS & set(said):
        return content
    return {**content, section: {"init_args": dict(said)}}


def _settle_terms(configuration: Configuration, arguments: list[str]) -> list[str]:
    """Take away the terms that are null, in files or arguments; return the arguments that are left."""
    model = configuration.merged.get("model")
    holder = model.get("init_args") if isinstance(model, dict) and names_class(model) else model
    groups = {key: (holder.get(key) if isinstance(holder, dict) else None) or {} for key in _TERMS}
    given = {argument.partition("=")[0].removesuffix(".class_path").replace(".init_args", "") for argument in arguments}
    left, options = [], iter(arguments)
    for argument in options:
        name, sign, value = argument.partition("=")
        found = _TERM_OPTION.fullmatch(name)
        if found is None or f"--model.{found[1]}" in given:  # in the latter case all terms are given anew
            left.append(argument)
            continue
        value = value if sign else next(options, "")
        terms, term, removed = groups[found[1]], found[2], not found[3] and value in ("null", "~")
        # An option may add a term if it also says the class. Without one it can only mean a term that is there.
        if term not in terms and (removed or (found[3] and f"--model.{found[1]}.{term}" not in given)):
            raise ValueError(f"{name}: there is no such term{meant(term, terms, '; there are: ' + ', '.join(terms))}")
        if removed:
            terms[term] = None
        else:
            left.append(f"{name}={value}")
    for key, terms in groups.items():
        for term, value in [*terms.items()]:
            if value is None:  # only now: a later file may have brought a term back that an earlier one took away
                del terms[term]
            elif isinstance(value, dict) and "class_path" not in value:
                near = meant(term, terms.keys() - {term}, "; write its class_path")
                raise ValueError(
                    f"{configuration.place('model', f'{key}.{term}')}: has no class_path, and no file before has it{near}"
                )
    return left
