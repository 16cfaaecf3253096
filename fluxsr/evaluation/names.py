"""Reads folders with names from a command line."""

from __future__ import annotations

from collections.abc import Sequence


def folders_by_name(texts: Sequence[str], beginning: str) -> dict[str, str]:
    """Return folders by the names of texts such as ``ours=results/ours``.

    Args:
        texts: Texts as they were given.
        beginning: Beginning of the message that says what is wanted.

    Raises:
        ValueError: If one is something else, or two have one name.
    """
    parts = [text.partition("=") for text in texts]
    folders = {name: place for name, _, place in parts if name and place}
    if len(folders) < len(texts):
        raise ValueError(f"{beginning} NAME=DIR, each with a name of its own, got {', '.join(texts)}")
    return folders
