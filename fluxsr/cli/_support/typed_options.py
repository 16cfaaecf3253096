"""Turns options of ``fluxsr fit`` into keys of its configuration: ``--data.crop 64`` is ``data: {crop: 64}``."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from fluxsr.cli._support.configurations import merge

GROUPS = ("model", "data", "trainer")


def settle_flags(arguments: list[str]) -> list[str]:
    """Return the arguments with ``=true`` after a key without a value, and ``--no-KEY`` as ``--KEY=false``."""
    settled = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        name = argument.removeprefix("--")
        if argument.startswith("--no-") and name.removeprefix("no-").split(".")[0] in GROUPS and "=" not in argument:
            argument = f"--{name.removeprefix('no-')}=false"
        elif argument.startswith("--") and _is_key(name) and "=" not in argument and following.startswith("--"):
            argument = f"{argument}=true"
        settled.append(argument)
    return settled


def with_options(merged: Mapping[str, Any], arguments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the configuration with the options in it, and the options as typed, by key without ``init_args``."""
    tree, typed = deepcopy(dict(merged)), {}
    left = iter(arguments)
    for argument in left:
        name, sign, text = argument.partition("=")
        key = name.removeprefix("--")
        if not argument.startswith("--") or not _is_key(key):
            continue
        _set(tree, key.removesuffix("+").split("."), _read(text if sign else next(left, "")))
        typed[plain(key.removesuffix("+"))] = name
    return tree, typed


def plain(key: str) -> str:
    """Return a key without ``init_args``, which may be left out, and without the numbers of a list's entries."""
    return ".".join(part for part in key.split(".") if part != "init_args" and not part.isdigit())


def _is_key(name: str) -> bool:
    return name.split(".")[0] in GROUPS and not name.endswith(".help")


def _read(text: str) -> Any:
    """Return a list or mapping that a text is in YAML, else the text: what it means is for its type to say."""
    import yaml
    from jsonargparse import get_loader

    try:
        value = get_loader("yaml")(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, list | dict | None) else text


def _set(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set the value at a path, through the arguments of classes on the way."""
    node: Any = tree
    for part in parts[:-1]:
        node = _child(node, part)
        if node is None:
            return
    if isinstance(node, dict):
        node = _arguments(node, parts[-1])
        node[parts[-1]] = merge(node.get(parts[-1]), value)


def _child(node: Any, part: str) -> Any:
    if isinstance(node, list):
        node = node[-1] if node and isinstance(node[-1], dict) else None  # the parser changes the last one
    if not isinstance(node, dict):
        return None
    node = _arguments(node, part)
    if isinstance(node.get(part), str):
        node[part] = {"class_path": node[part]}
    if not isinstance(node.get(part), dict | list):
        node[part] = {}
    return node[part]


def _arguments(node: dict[str, Any], part: str) -> dict[str, Any]:
    if "class_path" not in node or part in ("class_path", "init_args", "dict_kwargs"):
        return node
    if not isinstance(node.get("init_args"), dict):
        node["init_args"] = {}
    arguments: dict[str, Any] = node["init_args"]
    return arguments
