"""Reading and writing weights: safetensors only, whole or not at all, with errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fluxsr.atomic import replacing
from fluxsr.models.sources import check_source


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to ``path``: to a temporary name beside it first, then renamed.

    Raises:
        ValueError: if the file can't be written (a full disk, a missing permission), naming it.
    """
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                temporary,
                dict(metadata or {}),
            )
            os.chmod(temporary, 0o644)  # safetensors makes files that only their owner can read
    except Exception as error:
        # safetensors wraps the operating system's error in one of its own.
        raise ValueError(
            f"can't write {path}: {error}; nothing was left behind, free space or choose another place"
        ) from error


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        ValueError: if the file is missing or damaged, naming it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); make or download it again") from error


@contextmanager
def explain_loading(source: str) -> Iterator[None]:
    """Refuse what can be no folder and no hub id, and turn the many errors of loading into one that says what to do.

    Raises:
        ValueError: what :func:`fluxsr.models.sources.check_source` says, or the advice on the body's error.
    """
    check_source(source)
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        text = str(error)
        if "gated" in text.lower() or "401" in text or "403" in text:
            advice = "it is gated: accept its licence on its hub page and log in with `hf auth login`"
        elif Path(source).exists():
            advice = "the folder is incomplete or damaged: it must be laid out as diffusers' save_pretrained does"
        elif isinstance(error, ImportError):
            advice = "install the extra that it needs: pip install 'fluxsr[prompt]'"
        else:
            advice = "check the name; without a network give a local folder in diffusers' layout"
        first_line = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise ValueError(f"can't load {source!r}: {advice} ({first_line})") from error
