"""Looks up what is known of a model by its name, without a network and without weights: architecture, license, base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxsr.models.families import FAMILIES, PUBLISHED, published
from fluxsr.models.known_names import SHIPPED
from fluxsr.models.licenses import APACHE, UNKNOWN, License

FLUX_ARCHITECTURES: dict[str, dict[str, Any]] = {name: dict(one.config) for name, one in PUBLISHED.items()}
"""The configurations of transformers by name: as published, ``nano`` and ``nano2``, which are ours."""

AUTOENCODER_ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{name: dict(family.vae) for family in FAMILIES for name, one in family.published.items() if one.hub_id},
    # The small stand-in for FLUX.1's, madebyollin/taef1.
    "taef1": {"_class_name": "AutoencoderTiny", "latent_channels": 16},
}
"""The configurations of diffusers' autoencoders, by the name of their model."""


def flux_architecture(name: str) -> dict[str, Any]:
    """Return a copy of the named configuration; :func:`fluxsr.models.families.family_of` gives its class.

    Args:
        name: A key of :data:`FLUX_ARCHITECTURES`.

    Raises:
        ValueError: For an unknown name, with the list of the known ones.
    """
    if name not in FLUX_ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(FLUX_ARCHITECTURES)}")
    return dict(FLUX_ARCHITECTURES[name])


def license_of(base_model: str) -> License:
    """Return the license of what is made from a base: its own, or :data:`fluxsr.models.licenses.UNKNOWN`; never another's.

    Args:
        base_model: A shipped name, a hub id, or the name of a folder.
    """
    known = published(base_model)
    return APACHE if base_model in SHIPPED else UNKNOWN if known is None else known.license


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
    if _is(config, "flux.1-dev"):
        return PUBLISHED["flux.1-dev"].hub_id
    name = Path(model).resolve().name
    return "unknown" if published(name) is not None else name  # a folder of a known model's name may hold another


def _is(config: Mapping[str, Any], name: str, but: str = "") -> bool:
    """Say whether a configuration is the named architecture's, whatever it has at the key ``but``."""
    own = FLUX_ARCHITECTURES[name]
    found = ((config.get(key), value) for key, value in own.items() if key != but)
    return all((list(one) if isinstance(one, tuple) else one) == value for one, value in found)
