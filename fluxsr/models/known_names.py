"""Lists the names of models that are known without a look-up, and explains a name that can be none."""

from __future__ import annotations

from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

from fluxsr.models.families import PUBLISHED

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


def model_or_shipped(model: str | Path | None, lora: str | Path | None) -> str:
    """Return the name of the model to load: the given one, else the shipped student.

    Raises:
        ValueError: If there is an adapter and no model: on another base than its own it would make another picture, silently.
    """
    if model is None and lora is not None:
        if not Path(lora).exists():
            raise ValueError(f"{lora} does not exist: check the path of the adapter")
        raise ValueError(
            f"{lora} is an adapter, which needs the base that it was trained on: give the model, too (nano for "
            "fluxsr_nano.yaml)"
        )
    return "nano-student" if model is None else str(model)


def refuse_foreign(name: str) -> None:
    """Refuse what is no hub id: a foreign file, a path where nothing is, a name without an owner, or one that is mistyped.

    Raises:
        ValueError: Saying what it is, with the known name that is nearest.
    """
    path = Path(name)
    for kind, suffixes in _FOREIGN.items():
        if path.suffix.lower() in suffixes:
            raise ValueError(f"{name} is no model but {kind}: {EXPECTED}")
    if path.is_file():
        raise ValueError(f"{name} is a file, and no .safetensors file that holds what is wanted here: {EXPECTED}")
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise ValueError(
            f"there is no folder {name}: correct the path, or give a shipped name or a hub id (owner/name)"
        )
    near = _nearest(name)
    if "/" not in name:
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join((*SHIPPED, PIXEL))}; else {EXPECTED}"
        raise ValueError(f"there is no model and no folder {name!r}; {hint}")
    # A hub id that differs from a known one by a letter left out, doubled or swapped; somebody's copy has another owner.
    if near and name.lower() != near.lower() and SequenceMatcher(None, name, near).ratio() >= 0.97:
        raise ValueError(f"there is no model {name!r} that is known; did you mean {near!r}?")


def _nearest(name: str) -> str | None:
    """Return the known name that a mistyped one is most like; an owner may be missing."""
    known = {shipped: shipped for shipped in (*SHIPPED, PIXEL)}
    for hub_id in HUB_IDS:
        known |= {hub_id.lower(): hub_id, hub_id.lower().split("/")[1]: hub_id}
    close = get_close_matches(name.lower(), known, n=1)
    return known[close[0]] if close else None
