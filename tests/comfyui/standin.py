"""A small stand-in of ComfyUI's interface: as much of it as the nodes touch. The real one is in test_real_comfyui.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

PACK = Path(__file__).parents[2] / "comfyui"


class Interrupted(Exception):
    """What ComfyUI raises where somebody cancelled."""


class ModelPatcher:
    """Keeps a module on one of two devices, in parts where its subclass allows it."""

    def __init__(self, model: Any, load_device: Any, offload_device: Any) -> None:
        self.model, self.load_device, self.offload_device = model, load_device, offload_device

    def partially_load(self, device_to: Any, extra_memory: float = 0, force_patch_weights: bool = False) -> float:
        size = sum(parameter.nbytes for parameter in self.model.parameters())
        self.model.loaded = min(size, extra_memory)
        return self.model.loaded


class Sampler:
    """The base of samplers."""


class CFGGuider:
    """Runs a sampler on a model, between the two scalings of latents."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def inner_set_conds(self, conds: dict[str, Any]) -> None:
        self.conds = conds

    def __call__(self, x: Any, sigma: Any, model_options: Any = None, seed: Any = None) -> Any:
        ((context, values),) = self.conds["positive"]
        return x - sigma[:, None, None, None] * self.model.velocity(x, sigma, context, values)

    def sample(self, noise, latent, sampler, sigmas, callback=None, disable_pbar=False):
        shift, scale = self.model.latent_format.shift, self.model.latent_format.scale
        out = sampler.sample(self, sigmas, {}, callback, noise, (latent - shift) * scale, None, disable_pbar)
        return out / scale + shift


class CONST:
    """The kind of model sampling of flows."""


class Socket:
    """An input or output of a node."""

    def __init__(self, kind: str, name: str = "", **options: Any) -> None:
        self.kind, self.id, self.options = kind, name, options


def socket_type(kind: str) -> Any:
    def make(name: str = "", **options: Any) -> Socket:
        return Socket(kind, name, **options)

    return SimpleNamespace(Input=make, Output=make)


def modules(models_dir: Path) -> dict[str, ModuleType]:
    """The stand-in's modules by name.

    Args:
        models_dir: ComfyUI's folder of models.
    """
    state = SimpleNamespace(cancelled=False, loaded=[], bars=[])

    def throw() -> None:
        if state.cancelled:
            raise Interrupted

    def load_models_gpu(models, memory_required=0):
        state.loaded.append((models, memory_required))
        for model in models:
            model.partially_load(model.load_device, 7)

    class ProgressBar:
        def __init__(self, total):
            self.values = []
            state.bars.append(self)

        def update_absolute(self, value, total=None, preview=None):
            self.values.append((value, total))

    names = ("Combo", "Float", "Int", "Image", "Mask", "Latent", "Model", "Conditioning")
    kinds = {one: socket_type(one.upper()) for one in names}
    io = SimpleNamespace(
        **kinds,
        Custom=socket_type,
        ComfyNode=type("ComfyNode", (), {}),
        Schema=lambda **options: SimpleNamespace(**options),
        NodeOutput=lambda *args: SimpleNamespace(args=args),
    )
    folders: dict[str, list[str]] = {"loras": []}
    found = {
        "comfy": {},
        "comfy.model_management": {
            "get_torch_device": lambda: torch.device("cpu"),
            "intermediate_device": lambda: torch.device("cpu"),
            "is_device_cpu": lambda device: device.type == "cpu",
            "load_models_gpu": load_models_gpu,
            "free_memory": lambda size, device: [],
            "throw_exception_if_processing_interrupted": throw,
            "state": state,
        },
        "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
        "comfy.model_sampling": {"CONST": CONST},
        "comfy.samplers": {"Sampler": Sampler, "CFGGuider": CFGGuider},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy_api": {},
        "comfy_api.latest": {"ComfyExtension": type("ComfyExtension", (), {}), "io": io},
        "folder_paths": {
            "models_dir": str(models_dir),
            "add_model_folder_path": lambda name, path: folders.setdefault(name, []).append(path),
            "get_folder_paths": folders.__getitem__,
            "get_filename_list": lambda name: [],
            "get_full_path": lambda name, file: None,
        },
        "latent_preview": {"prepare_callback": lambda model, steps: None},
        "node_helpers": {
            "conditioning_set_values": lambda conds, values: [[one[0], {**one[1], **values}] for one in conds]
        },
    }
    made = {}
    for name, content in found.items():
        made[name] = module = ModuleType(name)
        vars(module).update(content)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(made[parent], child, module)
    return made


def load_pack(models_dir: Path, replace: Any = sys.modules.__setitem__) -> ModuleType:
    """Import the pack as ComfyUI does, by its folder, with the stand-in in the place of ComfyUI."""
    for name, module in modules(models_dir).items():
        replace(name, module)
    spec = importlib.util.spec_from_file_location(
        "custom_nodes_fluxsr", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    pack = importlib.util.module_from_spec(spec)
    replace(spec.name, pack)
    spec.loader.exec_module(pack)
    return pack
