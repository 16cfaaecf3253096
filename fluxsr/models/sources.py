"""Finds where a model's weights come from, for every command and constructor, and refuses anything else in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fluxsr.models.families import family_of
from fluxsr.models.known_names import (
    ASSETS,
    AUTOENCODER_ARCHITECTURES,
    EXPECTED,
    FLUX_ARCHITECTURES,
    PIXEL,
    SHIPPED,
    refuse_foreign,
)
from fluxsr.models.student import StudentRecord
from fluxsr.models.weight_files import open_safetensors, read_header

# The classes of diffusers' layout that are loaded.
AUTOENCODERS = ("AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderTiny")

PIPELINE = "FluxSRPipeline"  # as ``model_index.json`` names it
_LAYOUT = "the folder is incomplete or damaged: it must be laid out as diffusers' save_pretrained does"
_WHOLE = "diffusion_pytorch_model.safetensors"  # diffusers' name of a checkpoint in one piece

SourceKind = Literal[
    "pixel", "shipped", "file", "pipeline", "transformer", "autoencoder", "taesd", "architecture", "hub"
]


class ModelSource:
    """The place that a model's name means. Only local files are looked at before weights are asked for.

    Args:
        name: A shipped name, ``pixel``, an architecture's name, a ``.safetensors`` file, a folder, or a hub id.
        revision: Revision of a hub repository.

    Attributes:
        kind: Kind of the place. ``pixel`` is the autoencoder without weights. ``shipped`` is a name that comes with the
            package. ``file`` is one ``.safetensors`` file. ``pipeline``, ``transformer`` and ``autoencoder`` are folders in
            diffusers' layout. ``taesd`` is a folder with an encoder's and a decoder's file in taesd's own layout.
            ``architecture`` is a name without weights. ``hub`` is everything else that may be a hub id.
        path: The file or folder; ``None`` for the kinds that have none.

    Raises:
        ValueError: If the name can be none of these: a file of another kind, a path where nothing is, a name without an owner.
            A name that is nearly a known one is refused with the known name.
    """

    def __init__(self, name: str | Path, revision: str | None = None) -> None:
        self.name = str(name)
        self.revision = revision
        self.path: Path | None = None
        self.kind: SourceKind
        if self.name == PIXEL:
            self.kind = "pixel"
        elif self.name in SHIPPED:
            self.kind, self.path = "shipped", ASSETS / SHIPPED[self.name]
        elif self.name.endswith(".safetensors"):
            self.kind, self.path = "file", Path(name)
            if not self.path.is_file():
                raise ValueError(f"{name} does not exist: check the path, or, to plan, name a model like it")
        elif Path(name).is_dir():
            self.path = Path(name)
            self.kind = _kind_of_folder(self.path)
        elif self.name in FLUX_ARCHITECTURES:
            self.kind = "architecture"
        else:
            refuse_foreign(self.name)
            self.kind = "hub"

    @property
    def local(self) -> Path:
        """The file or folder, of a kind that has one."""
        assert self.path is not None
        return self.path

    @property
    def is_file(self) -> bool:
        """Whether all is in one ``.safetensors`` file of this library."""
        return self.kind in ("shipped", "file")

    @property
    def public_name(self) -> str:
        """The name where it means the same weights everywhere, a shipped one or a hub id; else empty."""
        return self.name if self.kind in ("shipped", "hub") else ""

    @cached_property
    def header(self) -> tuple[list[str], dict[str, str]]:
        """The names of a single file's tensors, and its metadata; nothing for other kinds."""
        return read_header(self.local) if self.is_file else ([], {})

    @cached_property
    def record(self) -> StudentRecord:
        """What the place says of a trained model; nothing where it is a base. A hub's ``model_index.json`` is downloaded."""
        if self.is_file:
            return StudentRecord.read(self.header[1], self.name)
        return record_in(self.index, self.name)

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of a pipeline's ``model_index.json``; nothing for a place that has none."""
        local = self.path is not None and (self.path / "model_index.json").is_file()
        return self.read_json("model_index.json") if local or self.kind == "hub" else {}

    @cached_property
    def scheduler(self) -> dict[str, Any] | None:
        """The content of a pipeline's ``scheduler/scheduler_config.json``; ``None``: there is none. A hub's is downloaded."""
        inside = "scheduler/scheduler_config.json"
        if self.kind != "hub":
            return self.read_json(inside) if self.path is not None and (self.path / inside).is_file() else None
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return self.read_json(inside)
        except ValueError as error:
            cause = error.__cause__
            # A file that is not on this disk may be on the hub.
            if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
                return None
            raise

    def transformer_config(self, offline: bool = False) -> dict[str, Any]:
        """Return the transformer's arguments.

        Args:
            offline: Whether a hub id must be answered without a network: from the hub's cache on this disk, or from what is
                known by its name.

        Raises:
            ValueError: If it holds no transformer, one of a class that is not known, or can't be asked.
        """
        if self.is_file:
            names, metadata = self.header
            if "architecture" in metadata:
                return dict(json.loads(metadata["architecture"]))
            if any(".lora_" in name for name in names):
                raise ValueError(
                    f"{self.name} is a LoRA adapter, not a model: give --lora {self.name} --model BASE, with the base that it "
                    "was trained on (nano for fluxsr_nano.yaml); in Python lora=, in a configuration lora_weights"
                )
            raise ValueError(
                f"{self.name} does not name its architecture, so it was not made by this library: give a folder in "
                "diffusers' layout"
            )
        if self.kind in ("pixel", "autoencoder", "taesd"):
            raise ValueError(f"{self.name} is an autoencoder, and what is wanted here is a transformer: {EXPECTED}")
        if self.kind == "architecture":
            if not offline:
                raise ValueError(
                    f"{self.name!r} names an architecture without shipped weights: give the hub id (or weights=False)"
                )
            return dict(FLUX_ARCHITECTURES[self.name])
        config = self._config(self.subfolder("transformer"), FLUX_ARCHITECTURES, offline)
        try:
            return family_of(config).complete(config)
        except ValueError as error:
            raise ValueError(f"{self.name} is {error}") from None

    def autoencoder_config(self, subfolder: str | None = None, offline: bool = False) -> dict[str, Any]:
        """Return an autoencoder's configuration, its ``_class_name`` included; see :meth:`transformer_config`."""
        if self.is_file or self.kind == "architecture":
            raise ValueError(
                f"{self.name} holds a transformer, and what is wanted here is an autoencoder: give pixel, a folder in "
                "diffusers' or taesd's layout or a hub id (owner/name)"
            )
        config = self._config(self.autoencoder_subfolder(subfolder), AUTOENCODER_ARCHITECTURES, offline)
        name = config.get("_class_name", "a model without a class")
        if name not in AUTOENCODERS:
            known = ", ".join(AUTOENCODERS)
            raise ValueError(f"{self.name} is {name!r}, which is not supported here; supported: {known}")
        return config

    def autoencoder_subfolder(self, subfolder: str | None = None) -> str | None:
        """Return the folder that an autoencoder is in: the given one, or ``vae`` where the source is a pipeline."""
        return subfolder or ("vae" if self.kind == "pipeline" else None)

    def own_autoencoder(self) -> tuple[str, str | None]:
        """Return name and subfolder of the autoencoder that the model comes with; a ``ValueError`` where there is none."""
        if self.kind == "hub" or (self.kind == "pipeline" and (self.local / "vae").is_dir()):
            return self.name, "vae"
        # A model on pixels has 2x2 packed positions of what space-to-depth by 4 makes of RGB.
        config = self.transformer_config()
        if config["in_channels"] == FLUX_ARCHITECTURES["nano"]["in_channels"]:
            return PIXEL, None
        known = " or ".join(family_of(config).autoencoders)
        raise ValueError(f"{self.name} has no autoencoder of its own: give one, for example {known}")

    def subfolder(self, part: str) -> str | None:
        """Return the folder that a part in diffusers' layout is in; ``None``: the source itself."""
        return part if self.kind in ("pipeline", "hub") else None

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Turn the many errors of loading from a folder or a hub into one ``ValueError`` that says what to do."""
        try:
            yield
        except (OSError, ValueError, ImportError) as error:
            text = str(error)
            if _is_forbidden(error):
                advice = "it is gated: accept its license on its hub page and log in with `hf auth login`"
            elif self.path is not None:
                advice = _LAYOUT
            elif isinstance(error, ImportError):
                advice = "install the extra that it needs: pip install 'fluxsr[prompt]'"
            else:
                advice = "check the name; without a network give a local folder in diffusers' layout"
            first_line = text.strip().splitlines()[0] if text.strip() else type(error).__name__
            raise ValueError(f"can't load {self.name!r}: {advice} ({first_line})") from error

    def pipeline_config(self) -> dict[str, Any]:
        """Return what ``model_index.json`` of a FluxSR pipeline says; a hub's is downloaded, another's is a ``ValueError``."""
        found = self.index
        if found.get("_class_name") != PIPELINE:
            what = f"is a {found['_class_name']}" if "_class_name" in found else "holds no pipeline"
            raise ValueError(
                f"{self.name} {what}, and what is wanted here is a FluxSRPipeline, as fluxsr export writes it. Of a base, give "
                "the adapter that was trained on it (lora), or the time of the LR latents (start_time)"
            )
        return found

    def file(self, inside: str) -> Path:
        """Return a file of a folder or of a hub repository, downloaded if it is not here."""
        if self.path is not None:
            return self.path / inside
        from huggingface_hub import hf_hub_download

        with self.explain():
            return Path(hf_hub_download(self.name, inside, revision=self.revision))

    def read_json(self, inside: str) -> dict[str, Any]:
        """Return the content of a JSON file of a folder or hub repository; a ``ValueError`` if it is missing or damaged."""
        path = self.file(inside)
        with self.explain():
            return _read_json(path)

    def _config(self, subfolder: str | None, known: dict[str, dict[str, Any]], offline: bool) -> dict[str, Any]:
        inside = f"{subfolder}/config.json" if subfolder else "config.json"
        if self.path is not None or not offline:
            return self.read_json(inside)
        from huggingface_hub import try_to_load_from_cache

        with self.explain():
            cached = try_to_load_from_cache(self.name, inside, revision=self.revision)
        if isinstance(cached, str):
            return _read_json(Path(cached))
        model = self.name.rsplit("/", 1)[-1].lower()
        if model in known:
            return dict(known[model])
        raise ValueError(
            f"the architecture of {self.name!r} is not known without a network: give one of {', '.join(known)}, or a "
            "local folder in diffusers' layout (its config.json is enough)"
        )


def record_in(index: Mapping[str, Any], name: str) -> StudentRecord:
    """Return what the ``model_index.json`` of a place ``name`` says of a trained model; nothing where it is a base's."""
    if index.get("_class_name") != PIPELINE:
        return StudentRecord()
    values = index.get("record")
    if values is None:  # of version 0.2, where the numbers stand by themselves
        numbers = {number: index.get(f"pixel_{number}") for number in ("downsample", "shift", "scale")}
        on_pixels = (index.get("vae") or [None])[0] is None
        values = {**index, "prompt": None, **({"autoencoder": {"kind": PIXEL, **numbers}} if on_pixels else {})}
    return StudentRecord.read(values, name)


def _is_forbidden(error: BaseException | None) -> bool:
    """Say whether a hub refused access: the status of its answer, which diffusers' own error keeps as its context."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
            return True
        error = error.__cause__ or error.__context__
    return False


def taesd_files(folder: Path) -> list[Path]:
    """Return the encoder's and the decoder's file of a folder in taesd's layout; none if it is not in that layout."""
    found = [list(folder.glob(f"*_{part}.safetensors")) for part in ("encoder", "decoder")]
    return [one for (one,) in found] if all(len(files) == 1 for files in found) else []


def _kind_of_folder(folder: Path) -> SourceKind:
    if (folder / "model_index.json").is_file() or any((folder / part).is_dir() for part in ("transformer", "vae")):
        return "pipeline"
    if (folder / "config.json").is_file():
        name = str(_read_json(folder / "config.json").get("_class_name", ""))
        return "autoencoder" if name.startswith("Autoencoder") else "transformer"
    if taesd_files(folder):
        return "taesd"
    if list(folder.glob("*_encoder.pth")):
        raise ValueError(f"{folder} holds pickled files, which are never opened: get them as .safetensors")
    raise ValueError(f"can't load '{folder}': {_LAYOUT}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


class StoredWeights:
    """The weights of a transformer on disk, read one tensor at a time: one larger than the memory can be made smaller.

    A hub's files are downloaded. What can't be read is a ``ValueError`` that names it.
    """

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        if source.kind == "hub":
            from huggingface_hub import snapshot_download

            with source.explain():
                folder = snapshot_download(source.name, revision=source.revision, allow_patterns="transformer/*")
            source = ModelSource(folder)
        self.config = source.transformer_config()
        self.files: Mapping[str, Path]
        if source.is_file:
            self.files = dict.fromkeys(source.header[0], source.local)
        else:
            with self.source.explain():
                self.files = _tensor_files(source.local / (source.subfolder("transformer") or ""))

    @property
    def dtype(self) -> str:
        """The torch name of the dtype that the weights are stored in."""
        return str(self.read("x_embedder.weight").dtype).removeprefix("torch.")

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU; it may be a view of the mapped file, which stays mapped as long as it lives."""
        if name not in self.files:
            raise ValueError(f"{self.source.name} has no tensor {name!r}: it is incomplete or no FLUX; get it again")
        # Opened anew each time: what one mapping has read counts as memory until it is closed.
        with open_safetensors(self.files[name]) as opened:
            return opened.get_tensor(name)


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Return the places of a checkpoint's tensors as diffusers writes them."""
    index = folder / f"{_WHOLE}.index.json"
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in places.items()}
    return dict.fromkeys(read_header(folder / _WHOLE)[0], folder / _WHOLE)
