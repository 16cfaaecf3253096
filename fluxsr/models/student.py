"""Keeps what a trained model is besides its weights: one record, read and written here for every kind of file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fluxsr.models.known_names import SHIPPED
from fluxsr.models.weight_files import read_header

logger = logging.getLogger(__name__)

LORA_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for in a folder

# Arguments of a transformer by which bases of one family differ; deeper ones have all layers of the others.
_SIZES = ("num_layers", "num_single_layers", "num_attention_heads", "attention_head_dim")


@dataclass(frozen=True)
class StudentRecord:
    """What a trained model is besides its weights.

    The same record stands in the header of an adapter and of a single file, in the ``model_index.json`` of a pipeline's folder
    and in a checkpoint of the training. What a file does not say has the default below; files of version 0.2 say less.

    Attributes:
        base: Shipped name or hub id of the model that it was made from; in an export also a folder's own name. Empty: not
            known.
        base_sizes: Arguments by which bases of one family differ, such as ``num_layers``.
        objective: Name of the class of its objective.
        from_noise: Whether it makes pictures of noise. Such a flow teacher restores none. By default it follows from
            the objective ``FlowMatching``.
        start_time: Time of the LR latents; ``None``: not known, and it must be given.
        window: Side in pixels of what the model sees at a time; ``None``: not known.
        scale: Magnification that it was trained for; ``None``: not known, taken as 4.
        guidance: Guidance scale that it was trained with; ``None``: none, or not known.
        prompt: Text of its prompt, for people.
        prompt_digest: Digest of the prompt's embeddings; empty: not known.
        autoencoder: Description of its autoencoder (``fingerprint()``), with a digest of the weights; empty: not known.
        autoencoder_name: Hub id of the autoencoder; empty: the base's own.
        license: Name of its license, for people.
        trained: How it was trained, for the model card.
        steps: Optimizer steps that it was trained for.
        encoder_lora: Digest of the file that adapts the autoencoder's encoder; empty: there is none.
    """

    base: str = ""
    base_sizes: Mapping[str, int] = field(default_factory=dict)
    objective: str = ""
    from_noise: bool = False
    start_time: float | None = None
    window: int | None = None
    scale: float | None = None
    guidance: float | None = None
    prompt: str = ""
    prompt_digest: str = ""
    autoencoder: Mapping[str, Any] = field(default_factory=dict)
    autoencoder_name: str = ""
    license: str = ""
    trained: str = ""
    steps: int | None = None
    encoder_lora: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str | Path) -> StudentRecord:
        """Read a record from a header, whose values are strings, or from JSON; other keys are left alone.

        Raises:
            ValueError: If a value can't be one, naming the file ``where`` it stands and the key.
        """
        found: dict[str, Any] = {}
        for one in fields(cls):
            value = values.get(one.name)
            if value is None:
                continue
            try:
                found[one.name] = value if one.type == "str" else _KINDS[str(one.type)](_plain(value))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{where} has a damaged header ({one.name} is {value!r}): make or download it again"
                ) from error
        found.setdefault("from_noise", found.get("objective") == "FlowMatching")
        found.setdefault("base", str(values.get("base_model", "")))  # the name in exports of version 0.2
        return cls(**found)

    def values(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as JSON can hold them."""
        plain = asdict(StudentRecord())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    def header(self) -> dict[str, str]:
        """Return :meth:`values` as strings, as the header of a safetensors file holds them."""
        return {
            name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for name, value in self.values().items()
        }

    def given(self, **changes: Any) -> StudentRecord:
        """Return the record with what a user gave in place of what it says; ``None`` changes nothing."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def check_restores(self, name: str | Path) -> None:
        """Raise a ``ValueError`` unless the model of this name upscales, and the time of the LR latents is known."""
        if self.from_noise:
            raise ValueError(
                f"{name} is a flow teacher, which makes pictures of noise and upscales none: give a student (nano-student, "
                "nano-flowsr, or what training made), or this one as the base of an adapter (lora)"
            )
        if self.start_time is None:
            raise ValueError(
                f"{name} does not say at which time the LR latents stand: give start_time (lr_time in training), or, of a "
                "base, the adapter that was trained on it (lora)"
            )

    def check_base(self, path: str | Path, name: str, config: Mapping[str, Any]) -> None:
        """Refuse a base that is not the one that an adapter was trained on; files of other programs say nothing of theirs.

        On a base of equal layers an adapter fits, and silently makes another picture. Another hub id is only warned about:
        people put adapters on relatives of their base on purpose. ``name`` is the present base's public name, or empty.
        """
        differ = [
            f"{key} is {size} there and {config.get(key)} here"
            for key, size in self.base_sizes.items()
            if size != config.get(key)
        ]
        if differ:
            base = self.base or "another base"
            raise ValueError(f"{path} was trained on {base} ({'; '.join(differ)}): give its own base")
        if self.base and name and self.base != name:
            if {self.base, name} & set(SHIPPED):
                raise ValueError(f"{path} was trained on {self.base}, not on {name}: give its own base")
            logger.warning("%s was trained on %s, and is put on %s: the result is another", path, self.base, name)

    def tell_differences(
        self,
        path: str | Path,
        *,
        guidance: float | None = None,
        prompt_digest: str = "",
        autoencoder: Any = None,
        objective: str = "",
    ) -> None:
        """Warn where a model is used with other conditions than it was trained with: its output is another then.

        What is empty or ``None`` is not compared; ``autoencoder`` is the description of the one in use.
        """
        if objective and self.objective and objective != self.objective:
            logger.warning("%s was trained with %s, and goes on with %s", path, self.objective, objective)
        different = []
        if None not in (guidance, self.guidance) and guidance != self.guidance:
            different.append(f"with guidance {self.guidance:g}, and runs with guidance {guidance:g}")
        if self.prompt_digest and prompt_digest not in ("", self.prompt_digest):
            different.append(f"with the prompt {self.prompt!r}, and runs with another (give its file of fluxsr prompt)")
        if autoencoder is not None and differing(self.autoencoder, autoencoder):
            different.append(f"with another autoencoder ({self.autoencoder}) than the present one ({autoencoder})")
        for what in different:
            logger.warning("%s was trained %s: the result is another", path, what)


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the keys that two descriptions of an autoencoder both have, with different values."""
    return [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]


def sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the arguments of a transformer by which the bases of a family differ."""
    return {key: config[key] for key in _SIZES if key in config}


def lora_file(path: str | Path) -> Path:
    """Return the file of an adapter, which may be in a folder as diffusers writes it."""
    return Path(path) / LORA_FILE if Path(path).is_dir() else Path(path)


def read_record(path: str | Path) -> StudentRecord:
    """Return what the header of an adapter (or its folder), or of a single file, says.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    file = lora_file(path)
    return StudentRecord.read(read_header(file)[1], file)


def _plain(value: Any) -> Any:
    """Return a value that may be written as JSON in a string."""
    return json.loads(value) if isinstance(value, str) else value


_KINDS: dict[str, Any] = {
    "bool": bool,
    "int | None": int,
    "float | None": float,
    "Mapping[str, int]": dict,
    "Mapping[str, Any]": dict,
}
