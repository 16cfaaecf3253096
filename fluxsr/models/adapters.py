"""Adds LoRA adapters to one frozen base, a role per adapter; writes them as diffusers does, and reads others' files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fluxsr.models.families import Family, family_of_model
from fluxsr.models.student import LORA_FILE, StudentRecord, lora_file
from fluxsr.models.weight_files import is_writer, public_name, read_safetensors, whole, write_safetensors

METADATA = "lora_adapter_metadata"  # where diffusers keeps peft's configuration in a file's header

# Beginnings of keys that say who wrote a file, and what stands there in diffusers' keys.
_PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "")


class AdapterRoles:
    """The adapters of one transformer, and which of them is in use.

    peft's own ``set_adapter`` also switches ``requires_grad``, so choosing another role before ``backward()`` silently
    gives a zero gradient. Here every LoRA layer reads *one shared list* of active names: choosing a role writes that
    list and touches nothing else. The first adapter freezes the transformer.
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.family = family_of_model(transformer)
        self.active: list[str] = []
        self.names: list[str] = []
        self.layers: list[Any] = []

    def add(
        self,
        name: str,
        *,
        rank: int,
        alpha: float | None = None,
        targets: str | Sequence[str] | None = None,
        text: bool = True,
        trainable: bool = True,
    ) -> None:
        """Add an adapter named ``name``; its ``requires_grad`` is set here and never changed again.

        Args:
            name: Name of the role, for example ``student``.
            rank: Rank of the two matrices.
            alpha: The update is scaled by ``alpha / rank``; the rank itself by default.
            targets: Names of linears as peft takes them (suffixes, or one regular expression for the full name);
                attention and MLP linears by default.
            text: Whether there are text tokens; without them the text stream gets no adapters.
            trainable: Whether the adapter's parameters take gradients.

        Raises:
            ValueError: For a rank below 1, a name in use, or targets that match nothing.
        """
        from peft import LoraConfig

        if rank < 1:
            raise ValueError(f"the LoRA rank must be at least 1, got {rank}")
        if name in self.names:  # peft does not see those of a folded model, whose layers may be another's too
            raise ValueError(f"there is an adapter {name!r} already: choose another name")
        if targets is None:
            image, words = self.family.image_linears, self.family.text_linears
            targets = f"{image}|{words}" if text else image
        # Without double-stream blocks there is nothing to leave out, of which peft warns.
        text_side = rf"(.*\.)?{self.family.text_linears}"
        leave_out = not text and any(re.fullmatch(text_side, module) for module, _ in self.transformer.named_modules())
        config = LoraConfig(
            r=rank,
            lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type]  # peft says int and takes any number
            target_modules=targets if isinstance(targets, str) else list(targets),
            exclude_modules=text_side if leave_out else None,
        )
        keep = {n for n, p in self.transformer.named_parameters() if p.requires_grad} if self.names else set()
        # Drawn on the CPU, so that a seed gives the same adapter anywhere; peft moves it to its layer's device.
        meta = next(self.transformer.parameters()).is_meta
        with torch.device("meta" if meta else "cpu"):
            self.transformer.add_adapter(config, adapter_name=name)
        self.names.append(name)
        for parameter_name, parameter in self.transformer.named_parameters():
            new = is_adapter_parameter(parameter_name, name)
            # peft has just frozen the other adapters and freed this one.
            parameter.requires_grad_((new and trainable) or parameter_name in keep)
            if new:
                # The optimizer's small steps are lost in bfloat16; peft casts activations as needed.
                parameter.data = parameter.data.float()
        self.layers = list(lora_layers(self.transformer).values())
        for layer in self.layers:
            layer._active_adapter = self.active

    def copy(self, source: str, name: str) -> None:
        """Add a frozen adapter ``name`` that starts with the weights of ``source``."""
        with self.use(source):  # refuses an unknown source
            state = self.state_dict(source)
        rank = lora_rank(state)
        alpha = self.layers[0].scaling[source] * rank
        self.add(name, rank=rank, alpha=alpha, targets=lora_targets(state), trainable=False)
        self.load_state_dict(name, state)

    @contextmanager
    def use(self, name: str | None) -> Iterator[None]:
        """Run the body with the adapter ``name``; ``None`` is the frozen base alone.

        Raises:
            ValueError: For an unknown name.
        """
        if name is not None and name not in self.names:
            raise ValueError(f"no adapter {name!r}; there are: {', '.join(self.names) or 'none'}")
        before = self.active[:]
        self.active[:] = [] if name is None else [name]
        # Autocast casts an adapter's input by itself; peft's own cast to float32 before it is a detour with the same bits.
        kind = self.transformer.device.type
        casts = not torch.is_autocast_enabled("cpu" if kind == "meta" else kind)
        for layer in self.layers:
            layer.cast_input_dtype_enabled = casts
        try:
            yield
        finally:
            self.active[:] = before

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """Return one adapter's tensors under diffusers' keys, ``transformer.<module>.lora_A.weight``.

        They share memory with the parameters, and are sharded where these are.
        """
        from peft.utils import get_peft_model_state_dict

        state = get_peft_model_state_dict(self.transformer, adapter_name=name)
        return {f"transformer.{public_name(key)}": tensor for key, tensor in state.items()}

    def load_state_dict(self, name: str, state: dict[str, Tensor]) -> None:
        """Copy tensors under diffusers' keys into the adapter ``name``; every key and shape must match.

        Raises:
            ValueError: Naming the first keys that are missing, unknown or of another shape.
        """
        own = self.state_dict(name)
        wrong = sorted(own.keys() ^ state.keys()) or [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if own[key].shape != state[key].shape
        ]
        if wrong:
            raise ValueError(
                f"the adapter does not fit this model ({len(wrong)} tensors differ, for example {', '.join(wrong[:3])}); "
                "was it trained on another base, or with another rank or other targets?"
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(state[key])  # state_dict shares memory with the parameters

    def save(self, path: str | Path, name: str, metadata: dict[str, str]) -> Path:
        """Write one adapter as a file that ``FluxPipeline.load_lora_weights`` loads; return its path.

        In a distributed run every process calls it, and the first one writes. A path that does not end in ``.safetensors`` is a
        folder, which gets ``pytorch_lora_weights.safetensors``.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            path = path / LORA_FILE
        # The file format has no place for alpha but this: kohya-style files hold a scalar per module. Folding the scale
        # into B keeps the format plain: every loader's default (alpha = rank) is then right.
        scaling = self.layers[0].scaling[name]
        state = {
            key: whole(tensor) * (scaling if ".lora_B." in key else 1) for key, tensor in self.state_dict(name).items()
        }
        if is_writer():
            write_safetensors(path, state, {**metadata, "format": "pt"})
        return path


def lora_layers(module: nn.Module) -> dict[str, Any]:
    """Return the LoRA layers inside a module, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)}


def is_adapter_parameter(parameter_name: str, adapter: str) -> bool:
    """Say whether a parameter's name belongs to the adapter (``...lora_A.<adapter>.weight``)."""
    return bool(re.search(rf"\.lora_\w+\.{re.escape(adapter)}(\.|$)", parameter_name))


def lora_targets(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the linears that an adapter's tensors adapt."""
    return sorted({key.removeprefix("transformer.").split(".lora_")[0] for key in state})


def lora_rank(state: Mapping[str, Tensor]) -> int:
    """Return the rank of an adapter's tensors."""
    return next(tensor.shape[0] for key, tensor in state.items() if ".lora_A." in key)


class LoraFile(NamedTuple):
    """An adapter's file."""

    path: Path
    state: dict[str, Tensor]
    record: StudentRecord


def read_lora(path: str | Path, family: Family, device: torch.device | str = "cpu") -> LoraFile:
    """Read an adapter file, or a folder with one; its keys may be diffusers', peft's or kohya's, which diffusers translates.

    The strength is ``alpha`` over the rank, from the header or from ``.alpha`` tensors. Where it is not 1, the second matrix of
    each pair is multiplied by it, so that the returned tensors need none.
    """
    path = lora_file(path)
    state, metadata = read_safetensors(path, device)
    if any(family.foreign_keys.match(key) for key in state):
        state = _translated(path, state, family)
    pairs = {_renamed(key): tensor for key, tensor in state.items()}
    alphas = {
        key.removesuffix(".alpha"): float(tensor)
        for key, tensor in pairs.items()
        if key.endswith(".alpha") and not tensor.is_meta
    }
    pairs = {key: tensor for key, tensor in pairs.items() if not key.endswith(".alpha")}
    if not any(".lora_A." in key for key in pairs):
        raise ValueError(f"{path} holds no LoRA adapter in diffusers', peft's or kohya's format")
    try:
        content = json.loads(metadata.get(METADATA, "{}"))
        header = {key.removeprefix("transformer."): value for key, value in content.items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} has a damaged header ({METADATA} is no JSON object): download it again") from error
    for key in [key for key in pairs if ".lora_B." in key]:
        module = key.split(".lora_B.")[0]
        rank = pairs[key].shape[1]
        scale = alphas[module] / rank if module in alphas else _scale(header, module.removeprefix("transformer."), rank)
        if scale != 1:
            pairs[key] = pairs[key] * scale
    return LoraFile(path, pairs, StudentRecord.read(metadata, path))


def _renamed(key: str) -> str:
    prefix = next(one for one in _PREFIXES if key.startswith(one))
    key = key.removeprefix(prefix).removeprefix("transformer.")
    return f"transformer.{key.replace('.lora_down.', '.lora_A.').replace('.lora_up.', '.lora_B.')}"


def _scale(header: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what multiplies an adapter's update, as peft computes it."""
    alpha = header.get("lora_alpha", rank)
    for pattern, value in (header.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if header.get("use_rslora") else rank)


def _translated(path: Path, state: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Let diffusers translate BFL's names of layers, and kohya's, in which these are hidden."""
    from diffusers.loaders import lora_pipeline

    loader: Any = getattr(lora_pipeline, family.lora_loader)
    try:
        return dict(loader.lora_state_dict(dict(state)))
    except Exception as error:
        raise ValueError(
            f"{path} is a LoRA in kohya's format, and diffusers can't translate it ({type(error).__name__}: {error}): convert "
            "it with sd-scripts' convert_diffusers_to_flux.py --reverse, or train with --save_format diffusers"
        ) from error
