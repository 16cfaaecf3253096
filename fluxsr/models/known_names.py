"""Lists what is known of models by their names, without a network and without weights, and explains a name that can be none."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

from fluxsr.models.families import APACHE, FAMILIES, PUBLISHED, UNKNOWN, License, published

FLUX_ARCHITECTURES: dict[str, dict[str, Any]] = {name: dict(one.config) for name, one in PUBLISHED.items()}
"""The configurations of transformers by name: as published, ``nano`` and ``nano2``, which are ours."""

AUTOENCODER_ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{name: dict(family.vae) for family in FAMILIES for name, one in family.published.items() if one.hub_id},
    # The small stand-in for FLUX.1's, madebyollin/taef1.
    "taef1": {"_class_name": "AutoencoderTiny", "latent_channels": 16},
}
"""The configurations of diffusers' autoencoders, by the name of their model."""

# The names that come with weights inside the package, and the file of each.
SHIPPED = {
    "nano": "nano_teacher.safetensors",
    "nano-student": "nano_student.safetensors",
    "nano-flowsr": "nano_flowsr.safetensors",
}
PIXEL = "pixel"  # the autoencoder without weights
# The hub ids that are no mistyped ones.
HUB_IDS = (*(one.hub_id for one in PUBLISHED.values() if one.hub_id), "madebyollin/taef1")

ASSETS = Path(__file__).parent.parent / "assets"
_FOREIGN = {
    "an image": (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"),
    "a configuration, which `fluxsr fit --config` takes": (".yaml", ".yml"),
    "a checkpoint of the whole training; beside it is the exported backbone.safetensors": (".ckpt",),
}
EXPECTED = "give a shipped name, a .safetensors file, a folder in diffusers' layout or a hub id (owner/name)"


def flux_architecture(name: str) -> dict[str, Any]:
    """Return a copy of a configuration in :data:`FLUX_ARCHITECTURES`; a ``ValueError`` for an unknown name."""
    if name not in FLUX_ARCHITECTURES:
        raise ValueError(f"unknown architecture {name!r}; known: {', '.join(FLUX_ARCHITECTURES)}")
    return dict(FLUX_ARCHITECTURES[name])


def license_of(base_model: str) -> License:
    """Return the license of what is made from a base, by its shipped name, hub id or folder's name; never another's."""
    known = published(base_model)
    return APACHE if base_model in SHIPPED else UNKNOWN if known is None else known.license


def base_of(model: str, config: Mapping[str, Any]) -> str:
    """Return the public name of the base that ``model`` is: a hub id, ``nano``, or a folder's own name, without its path.

    With the configuration of FLUX.1-dev's transformer, it is that or made from it.
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


def model_or_shipped(model: str | Path | None, lora: str | Path | None) -> str:
    """Return the model to load: the given one, else the shipped student.

    An adapter without a model is refused: on another base than its own it would make another picture, silently.
    """
    if model is None and lora is not None:
        if not Path(lora).exists():
            raise ValueError(f"{lora} does not exist: check the path of the adapter")
        raise ValueError(
            f"{lora} is an adapter: give the model that it was trained on, too (nano for fluxsr_nano.yaml)"
        )
    return "nano-student" if model is None else str(model)


def refuse_foreign(name: str) -> None:
    """Refuse what is no hub id (a foreign file, a missing path, a mistyped name or one without owner), naming what is near."""
    path = Path(name)
    for kind, suffixes in _FOREIGN.items():
        if path.suffix.lower() in suffixes:
            raise ValueError(f"{name} is no model but {kind}: {EXPECTED}")
    if path.is_file():
        raise ValueError(f"{name} is a file, and no .safetensors file that holds what is wanted here: {EXPECTED}")
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise ValueError(f"there is no folder {name}: correct the path, or give a shipped name or a hub id")
    known = {shipped: shipped for shipped in (*SHIPPED, PIXEL)}
    for hub_id in HUB_IDS:  # of a mistyped one the owner may be missing
        known |= {hub_id.lower(): hub_id, hub_id.lower().split("/")[1]: hub_id}
    close = get_close_matches(name.lower(), known, n=1)
    near = known[close[0]] if close else None
    if "/" not in name:
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join((*SHIPPED, PIXEL))}; else {EXPECTED}"
        raise ValueError(f"there is no model and no folder {name!r}; {hint}")
    # A hub id that differs from a known one by a letter left out, doubled or swapped; somebody's copy has another owner.
    if near and name.lower() != near.lower() and SequenceMatcher(None, name, near).ratio() >= 0.97:
        raise ValueError(f"there is no model {name!r} that is known; did you mean {near!r}?")
