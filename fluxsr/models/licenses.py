"""Defines licenses, and what each means for adapters and exported models; each published model names its own."""

from __future__ import annotations

from typing import NamedTuple


class License(NamedTuple):
    """A license as a model hub names it.

    Attributes:
        identifier: The hub's short name; ``other`` for a license that has none.
        name: Name of the license.
        link: Link to its text; empty where no license is known.
        commercial: Whether commercial use is free.
        terms: Meaning for an adapter or an exported model that was made from the base.
    """

    identifier: str
    name: str
    link: str
    commercial: bool
    terms: str


APACHE = License(
    "apache-2.0",
    "apache-2.0",
    "https://www.apache.org/licenses/LICENSE-2.0",
    True,
    "Commercial use is allowed: adapters and exported models may be used, changed, shared and sold under this license.",
)
UNKNOWN = License(
    "unknown",
    "unknown",
    "",
    False,
    "The license of its base is not known here: **ask whoever made the base** before you use, share or sell this.",
)


def non_commercial(name: str, repository: str) -> License:
    """Return one of Black Forest Labs' non-commercial licenses, as it is linked from a repository."""
    return License(
        "other",
        name,
        f"https://huggingface.co/black-forest-labs/{repository}",
        False,
        "**Commercial use is not allowed** without a license from Black Forest Labs: adapters and exported models are derived "
        "from the base, and its license goes with every copy.",
    )
