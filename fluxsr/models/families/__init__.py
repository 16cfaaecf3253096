"""Lists the families of transformers, and finds the one of a configuration, a model or a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fluxsr.models.families.family import (
    APACHE,
    FOLDED_HOME,
    UNKNOWN,
    Conditions,
    Family,
    License,
    Published,
    from_diffusers,
    is_folded,
)
from fluxsr.models.families.flux1 import FLUX1
from fluxsr.models.families.flux2 import FLUX2

__all__ = [
    "APACHE",
    "FAMILIES",
    "FLUX1",
    "FLUX2",
    "FOLDED_HOME",
    "PUBLISHED",
    "UNKNOWN",
    "Conditions",
    "Family",
    "License",
    "Published",
    "family_of",
    "family_of_model",
    "from_diffusers",
    "is_folded",
    "published",
]

FAMILIES: tuple[Family, ...] = (FLUX1, FLUX2)
"""All of them; a loop over these is the only list of families."""

PUBLISHED: dict[str, Published] = {name: one for family in FAMILIES for name, one in family.published.items()}
"""The models that are known by name, in small letters."""


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a transformer's configuration, by its class name, or by the argument that marks it."""
    name = config.get("_class_name")
    for family in FAMILIES:
        if name in (family.transformer, family.folded) or (name is None and family.mark[0] in config):
            return family
    raise ValueError(f"{name or 'a transformer without a class name'!r}, which is not supported here; {supported()}")


def family_of_model(transformer: nn.Module) -> Family:
    """Return the family of a transformer, by the names of its class and the classes above it."""
    names = [kind.__name__ for kind in type(transformer).__mro__]
    for family in FAMILIES:
        if family.transformer in names:
            return family
    raise ValueError(f"the transformer is {names[0]!r}, which is not supported here; {supported()}")


def supported() -> str:
    """Return which transformers are supported, in words."""
    return "supported: " + ", ".join(f"{family.name} ({family.transformer})" for family in FAMILIES)


def published(name: str) -> Published | None:
    """Return what is known of a model: of a hub id, a shipped name or a name alone; ``None`` for all others.

    A hub id of another owner is not known: what it holds may be another model.
    """
    owner, _, short = name.rpartition("/")
    known = PUBLISHED.get(short.lower())
    return known if known is not None and owner in ("", known.hub_id.rpartition("/")[0]) else None
