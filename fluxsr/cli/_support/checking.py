"""A parser's message about a configuration, in one line: which key, in which file, and the innermost cause."""

from __future__ import annotations

import re
from importlib import import_module

from fluxsr.cli.configs import Configuration, class_named, did_you_mean, dotted, parameters_of

LONGEST = 300  # characters of a message

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "list": "a list",
    "dict": "keys with values",
}


def explain(message: str, configuration: Configuration, arguments: list[str]) -> str:
    """Return a shorter message, with the whole key and the file that sets it.

    jsonargparse says every type that it tried, and the whole value: a thousand characters for a wrong number in a loss.

    Args:
        message: jsonargparse's, with its line breaks.
        configuration: the files that were given.
        arguments: the options that were given beside them.
    """
    keys, text = _cause(message.splitlines() or [""], [])
    if required := re.match(r"the following arguments are required: (.*\..*)", text):
        keys = [re.sub(r"^(fit|validate|test|predict)\.", "", one.strip()) for one in required[1].split(",")]
        return _short(f"the configuration lacks {', '.join(keys)}: write that into it, or give another --config")
    if keys and (required := re.match(r"the following arguments are required: ([\w, ]+)$", text)):
        lacking = ", ".join(f"{'.'.join(keys)}.{one.strip()}" for one in required[1].split(","))
        return _short(f"the configuration lacks {lacking}: write that into it, or give --{lacking.split(',')[0]}")
    if required := re.match(r"the following arguments are required: ([\w, ]+)$", text):
        return f"required and not given: {', '.join(f'--{one.strip()}' for one in required[1].split(','))}"
    if not keys:
        return _short(re.sub(r"^Subcommand '\w+' does not accept option '([^']+)'", r"there is no key \1", text))
    option = re.match(r"(?:.* )?has no option '(\w+)'", text)
    value = re.search(r", got '?(.*?)'?$", text)
    wanted = [*keys, option[1]] if option else keys
    if named := re.match(r"there is no class ([\w.]+)", text):
        key, typed = _key_of_class(keys[0], named[1], configuration)
    else:
        key, typed = _whole_key(wanted, value[1] if value else None, configuration, arguments)
    file = None if typed else configuration.source(key)
    return _short(f"{f'{file}: ' if file else ''}{key}: {text}")


def _cause(lines: list[str], keys: list[str], holder: str = "") -> tuple[list[str], str]:
    """Return the keys from the outside in, and what is said about the last one. ``holder`` is the class that has it."""
    lines = [line for line in lines if line.strip()] or [""]
    first = lines[0].strip()
    classes = [
        number for number, line in enumerate(lines) if line.strip().startswith("- Problem with given class_path")
    ]
    if first.startswith("- ") and classes:  # tried as something else too, such as a path
        return _cause([lines[classes[0]].strip().removeprefix("- "), *lines[classes[0] + 1 :]], keys, holder)
    if match := re.match(r'Parser key "([^"]+)":\s*(.*)', first):
        return _cause([match[2], *lines[1:]] if match[2] else lines[1:] or [""], [*keys, match[1]], holder)
    if match := re.match(r"Problem with given class_path '([^']+)':\s*(.*)", first):
        return _cause([match[2], *lines[1:]] if match[2] else lines[1:] or [""], keys, match[1])
    if first.startswith("Does not validate against any of the Union subtypes"):
        return _of_union(lines, keys, holder)
    text = " ".join(" ".join(lines).split()).split(" Given value type:")[0].split(" Subclass types expect")[0]
    if match := re.match(r"Option '([^']+)' is not accepted", text):
        taken = _options_of(holder)
        return keys, f"{holder.rpartition('.')[2]} has no option {match[1]!r}" + did_you_mean(
            match[1], taken, f"it takes {', '.join(taken)}" if taken else ""
        )
    if match := re.match(r"module '([^']+)' has no attribute '([^']+)'", text):
        names = [name for name in dir(import_module(match[1])) if not name.startswith("_")]
        near = did_you_mean(match[2], names) if holder in ("", f"{match[1]}.{match[2]}") else ""
        return keys, f"there is no class {holder or f'{match[1]}.{match[2]}'}{near}"
    if match := re.match(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", text):
        return keys, f"must be one of {match[1]}, got {match[2]!r}"
    if match := re.match(r"Expected a <class '([\w.]+)'>\. Got value: (.*)", text):
        return keys, f"must be {_TYPES.get(match[1], match[1])}, got {match[2]!r}"
    return keys, text


def _of_union(lines: list[str], keys: list[str], holder: str) -> tuple[list[str], str]:
    """Of a value that may be of several types: the type that it came nearest to."""
    start = next((number for number, line in enumerate(lines) if line.strip() == "Errors:"), None)
    if start is None or start + 1 == len(lines):
        return keys, " ".join(" ".join(lines).split())
    margin = len(lines[start + 1]) - len(lines[start + 1].lstrip())
    tried: list[list[str]] = []
    given = ""
    for line in lines[start + 1 :]:
        indent = len(line) - len(line.lstrip())
        if indent < margin:
            given = line.strip().removeprefix("Given value: ")
        elif indent == margin and line.lstrip().startswith("- "):
            tried.append([line.strip().removeprefix("- ")])
        elif tried:
            tried[-1].append(line)
    for one in tried:  # it was taken for this class, or for these keys: the rest says only that it is nothing else
        if one[0].startswith(("Problem with given class_path", "Parser key")):
            return _cause(one, keys, holder)
    types = [re.match(r"Expected a (?:<class '([\w.]+)'>|typing\.Literal\[(.*)\])", one[0]) for one in tried]
    others = [one for one, kind in zip(tried, types, strict=True) if kind is None]
    if others:
        return _cause(others[0], keys, holder)
    names = [f"one of {kind[2]}" if kind[2] else _TYPES.get(kind[1], kind[1]) for kind in types if kind]
    # null last: releases of jsonargparse order the types differently
    return keys, f"must be {' or '.join(sorted(names, key='null'.__eq__))}, got {given!r}"


def _whole_key(
    keys: list[str], value: str | None, configuration: Configuration, arguments: list[str]
) -> tuple[str, bool]:
    """Return the whole path of a key whose middle jsonargparse leaves out, and whether it was typed as an option."""
    typed = {name.removeprefix("--"): text for name, _, text in (one.partition("=") for one in _joined(arguments))}
    for found, is_typed in ((typed, True), (dotted(configuration.merged), False)):
        names = [name for name in found if name.startswith(f"{keys[0]}.") and _ends_with(name, keys[1:])]
        if len(names) > 1 and value is not None:
            names = [name for name in names if str(found[name]) == value]
        if len(names) == 1 and keys[1:]:
            return names[0], is_typed
    return ".".join(keys), keys[0] in typed


def _key_of_class(start: str, path: str, configuration: Configuration) -> tuple[str, bool]:
    """Return the key that names a class, or else the outermost one, and whether it was typed as an option."""
    named = [key for key, value in dotted(configuration.merged).items() if value == path and key.startswith(start)]
    return (named[0].removesuffix(".class_path"), False) if named else (start, True)


def _joined(arguments: list[str]) -> list[str]:
    """Write ``--name value`` as ``--name=value``."""
    return [
        f"{name}={value}" if "=" not in name and not value.startswith("--") else name
        for name, value in zip(arguments, [*arguments[1:], "--"], strict=False)
        if name.startswith("--")
    ]


def _ends_with(name: str, keys: list[str]) -> bool:
    parts = [part for part in name.split(".") if part not in ("init_args", "dict_kwargs")]
    wanted = [part for key in keys for part in key.split(".") if part not in ("init_args", "dict_kwargs")]
    return parts[-len(wanted) :] == wanted if wanted else False


def _options_of(path: str) -> list[str]:
    return sorted(parameters_of(class_named(path)) - {"self", "args", "kwargs"})


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4].rstrip()} ..."
