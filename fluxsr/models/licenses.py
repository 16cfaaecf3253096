"""Lists the licenses of the known bases, and what each means for adapters and exported models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluxsr.models.architectures import FLUX_ARCHITECTURES
from fluxsr.models.known_names import SHIPPED

OWNER = "black-forest-labs"


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


def _non_commercial(name: str, repository: str, file: str = "") -> License:
    """Return one of Black Forest Labs' non-commercial licenses, as it is linked from a repository."""
    return License(
        "other",
        name,
        f"https://huggingface.co/{OWNER}/{repository}{file}",
        False,
        "**Commercial use is not allowed** without a license from Black Forest Labs: adapters and exported models are derived "
        "from the base, and its license goes with every copy.",
    )


_FLUX1 = "flux-1-dev-non-commercial-license"
_FLUX2 = "flux-non-commercial-license"

BASES: dict[str, License] = {
    **dict.fromkeys(SHIPPED, APACHE),
    "flux.1-schnell": APACHE,
    "flux.1-dev": _non_commercial(_FLUX1, "FLUX.1-dev", "/blob/main/LICENSE.md"),
    "flux.1-krea-dev": _non_commercial(_FLUX1, "FLUX.1-Krea-dev"),
    "flux.1-kontext-dev": _non_commercial(_FLUX1, "FLUX.1-Kontext-dev"),
    "flux.2-klein-4b": APACHE,
    "flux.2-klein-base-4b": APACHE,
    "flux.2-klein-9b": _non_commercial(_FLUX2, "FLUX.2-klein-9B"),
    "flux.2-klein-9b-kv": _non_commercial(_FLUX2, "FLUX.2-klein-9b-kv"),
    "flux.2-klein-base-9b": _non_commercial(_FLUX2, "FLUX.2-klein-base-9B"),
    "flux.2-dev": _non_commercial(_FLUX2, "FLUX.2-dev"),
}
"""License by the base's name in small letters, without its owner."""


def license_of(base_model: str) -> License:
    """Return the license of what is made from a base: its own, or :data:`UNKNOWN`; never another model's.

    Args:
        base_model: A shipped name, a hub id, or the name of a folder. A hub id of another owner is not known: what it holds may
            have been trained on, under other terms.
    """
    owner, _, name = base_model.rpartition("/")
    return BASES.get(name.lower(), UNKNOWN) if owner in ("", OWNER) else UNKNOWN


def base_of(model: str, config: Mapping[str, Any]) -> str:
    """Return the public name of the base that ``model`` is: a hub id, ``nano``, or a folder's own name, without its path.

    Args:
        model: Name or path of the loaded model.
        config: Configuration of its transformer. With FLUX.1-dev's own, it is that or made from it.
    """
    if model in SHIPPED or _is(config, "nano", but="num_single_layers"):  # the student is nano made deeper
        return "nano"
    if not Path(model).exists():
        return model
    return f"{OWNER}/FLUX.1-dev" if _is(config, "flux.1-dev") else Path(model).resolve().name


def _is(config: Mapping[str, Any], name: str, but: str = "") -> bool:
    """Say whether a configuration is the named architecture's, whatever it has at the key ``but``."""
    own = FLUX_ARCHITECTURES[name]
    found = ((config.get(key), value) for key, value in own.items() if key != but)
    return all((list(one) if isinstance(one, tuple) else one) == value for one, value in found)
