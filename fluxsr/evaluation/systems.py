"""Defines what can be measured: a folder of results, bicubic, a model of ours, or any that spandrel loads."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fluxsr.digest import file_digest
from fluxsr.evaluation.cost import CostMeter
from fluxsr.evaluation.imresize import imresize
from fluxsr.images import read_image

if TYPE_CHECKING:
    from fluxsr.inference import Upscaler
    from fluxsr.inference.engine import ColorFix
    from fluxsr.models.devices import DType

PEER_SUFFIXES = (".pth", ".pt", ".ckpt")


@dataclass
class System:
    """One system.

    Attributes:
        name: Name as results are filed.
        source: Folder, file or model id, for the reader.
        identity: Changes when the system does; ``""`` for folders, whose files are compared.
        files: The results by image, for a folder.
        how: Rule by which they were matched.
        restore: ``restore(lr_image, (height, width))``, both images ``(1, 3, H, W)`` in ``[0, 1]``, for all others.
        meter: Meter of what ``restore`` costs, if that matters.
        parameters: Number of the networks' parameters, if they are known.
    """

    name: str
    source: str
    identity: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    how: str = ""
    restore: Callable[[Tensor, tuple[int, int]], Tensor] | None = None
    meter: CostMeter | None = None
    parameters: int | None = None

    def picture(
        self, image: str, lr_image: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, dict[str, Any] | None]:
        """Return the system's picture of an image, ``(1, 3, H, W)`` rounded to 8 bit, and what it cost.

        Raises:
            ValueError: If LR images are missing, or the picture has another size than it should.
        """
        if self.restore is None:
            return read_image(self.files[image])[None], None
        if lr_image is None:
            raise ValueError(f"{self.name} needs LR images: give --lr, or --benchmark")
        if self.meter is not None:
            self.meter.reset()
        start = time.perf_counter()
        with torch.inference_mode():
            picture = rounded(self.restore(lr_image, size).cpu())
        total = time.perf_counter() - start
        if picture.shape[-2:] != size:
            raise ValueError(
                f"{self.name} makes {picture.shape[-1]}x{picture.shape[-2]} pixels of {image}, the benchmark wants "
                f"{size[1]}x{size[0]}: it is for another scale"
            )
        if self.meter is None:
            return picture, None
        return picture, {"seconds": {"total": total, **self.meter.seconds}, "peak_bytes": dict(self.meter.peak_bytes)}

    def macs(self, lr_image: Tensor, size: tuple[int, int]) -> dict[str, int] | None:
        """Return the multiply-accumulates of restoring an image, by stage; ``None`` where they can't be counted.

        It restores the image once more, since counting would spoil the times.
        """
        if self.meter is None or self.restore is None:
            return None
        self.meter.reset()
        try:
            with torch.inference_mode(), self.meter.counting():
                self.restore(lr_image, size)
        except (RuntimeError, NotImplementedError, TypeError):  # a compiled or quantized network, of unknown operations
            return None
        return {**self.meter.macs, "total": sum(self.meter.macs.values())}


def rounded(image: Tensor) -> Tensor:
    """Return an image as an 8-bit file would have it."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def bicubic() -> System:
    """Return bicubic enlargement as MATLAB's ``imresize`` does it, the baseline of the field's tables."""
    return System("bicubic", "imresize, a = -0.5", "imresize", restore=imresize)


def load_model(
    model: str, name: str | None = None, device: str = "auto", steps: int = 1, color_fix: ColorFix = "wavelet"
) -> System:
    """Load a model as a system.

    Args:
        model: What :meth:`fluxsr.inference.Upscaler.from_pretrained` takes, or a file of weights that the package spandrel
            knows: ``.pth``, ``.pt``, ``.ckpt``, or ``.safetensors`` that isn't ours.
        name: Name as results are filed; by default the file's or folder's own.
        device: Device to run on: auto, cpu, cuda or mps.
        steps: Steps of the solver, for models of ours.
        color_fix: Color fix: wavelet, adain or none, for models of ours; others are measured without.

    Raises:
        ValueError: If it can't be loaded, spandrel is not installed, or a model that knows no steps is to take several.
    """
    name = name or _name_of(Path(model))
    (system,) = load_variants(model, name, device, [steps], [color_fix])
    return replace(system, name=name)


def load_variants(
    model: str,
    name: str | None = None,
    device: str = "auto",
    steps: Sequence[int] = (1,),
    color_fixes: Sequence[ColorFix] = ("wavelet",),
    grid_fix: bool = True,
    lora: str | None = None,
    prompt: str | None = None,
    guidance: float | None = None,
    autoencoder: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    dtype: DType | None = None,
    memory: str | None = None,
    revision: str | None = None,
) -> list[System]:
    """Load a model once, and return a system for each number of steps with each color fix.

    What spandrel loads has neither, and is one system.

    Args:
        model: Model, as for :func:`load_model`.
        name: Name of all of them; what distinguishes them is added, unless it is one step and wavelet alone.
        device: Device to run on: auto, cpu, cuda or mps.
        steps: Steps of the solver.
        color_fixes: Color fixes: wavelet, adain or none.
        grid_fix: Remove the grid of the tokens, as upscaling does.
        lora, prompt, guidance, autoencoder, start_time, window, dtype, memory, revision: As
            :meth:`fluxsr.inference.Upscaler.from_pretrained` takes them; for models of ours.

    Raises:
        ValueError: As :func:`load_model`.
    """
    for number in steps:
        if number < 1:
            raise ValueError(f"steps must be at least 1, got {number}")
    path = Path(model)
    name = name or _name_of(path)
    chosen = (guidance, autoencoder, start_time, window, dtype, memory, revision)
    if path.suffix in PEER_SUFFIXES or (path.suffix == ".safetensors" and not _is_ours(path)):
        most = max(steps, default=1)
        if most > 1:
            raise ValueError(f"{model} knows no steps: measure it in another call than models of ours in {most} steps")
        if any(one is not None for one in (lora, prompt, *chosen)):
            raise ValueError(
                f"{model} is a model of another project, which takes no lora, prompt or other option of ours"
            )
        return [_load_peer(path, name, device)]
    from fluxsr.evaluation.metered import MeteredVelocity, metered
    from fluxsr.inference import Upscaler

    own = Upscaler.from_pretrained(
        model,
        lora=lora,
        prompt=prompt,
        guidance=guidance,
        autoencoder=autoencoder,
        start_time=start_time,
        window=window,
        device=device,
        dtype=dtype,
        memory=memory,
        revision=revision,
        grid_fix=grid_fix,
    )
    networks = [part for part in (own.velocity, own.autoencoder) if isinstance(part, nn.Module)]
    meter = CostMeter(own.device)
    # They are measured one after the other, so that one meter is enough.
    velocity, own_autoencoder = MeteredVelocity(own.velocity, meter), metered(own.autoencoder, meter)
    identity, count = ", ".join(_identity(one) for one in (model, lora, prompt) if one is not None), _count(networks)
    if any(one is not None for one in chosen):
        identity += f", {chosen}"
    systems = []
    for number, fix in product(steps, color_fixes):
        said = [name]
        said += [f"{number} step{'s' if number > 1 else ''}"] if [*steps] != [1] else []
        said += [f"color fix {fix}"] if [*color_fixes] != ["wavelet"] else []
        upscaler = own.changed(velocity=velocity, autoencoder=own_autoencoder, color_fix=fix)
        restore = partial(_restored, upscaler, number)
        told = f"{identity}, {number} steps, color fix {fix}, {'with' if grid_fix else 'without'} grid fix"
        systems.append(System(", ".join(said), model, told, restore=restore, meter=meter, parameters=count))
    return systems


def _restored(upscaler: Upscaler, steps: int, lr_image: Tensor, size: tuple[int, int]) -> Tensor:
    result = upscaler.upscale_pixels(lr_image[0].permute(1, 2, 0).numpy(), size=size, steps=steps)
    return torch.from_numpy(result).permute(2, 0, 1)[None]


def _name_of(path: Path) -> str:
    return path.stem if path.suffix in (*PEER_SUFFIXES, ".safetensors") else path.name


def _count(networks: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _load_peer(path: Path, name: str, device: str) -> System:
    try:
        import spandrel
    except ImportError:
        raise ValueError(f"{path} is loaded by the package spandrel: pip install 'fluxsr[peers]'") from None
    from fluxsr.models.devices import choose_device

    place = choose_device(device)
    try:
        descriptor: Any = spandrel.ModelLoader(place).load_from_state_dict(_state_dict(path))
    except spandrel.UnsupportedModelError as error:
        raise ValueError(f"spandrel knows no model with the weights in {path}") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.input_channels != 3:
        raise ValueError(f"{path} holds {descriptor.architecture.name}, which doesn't map a color image to another")
    network = descriptor.float().eval()
    meter = CostMeter(place)

    def restore(lr_image: Tensor, size: tuple[int, int]) -> Tensor:
        with meter.stage("network"):
            return network(lr_image.to(place, copy=True)).cpu()  # the image is the other systems', too

    parameters = _count([network.model])
    return System(name, str(path), _identity(str(path)), restore=restore, meter=meter, parameters=parameters)


def _state_dict(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    try:
        # Never the unsafe unpickler: a file from the net could run code.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} can't be read as a file of weights: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no weights by name")
    return content


def _is_ours(path: Path) -> bool:
    from fluxsr.models.weight_files import read_header

    if not path.is_file():
        return True
    names, metadata = read_header(path)
    return bool({"start_time", "architecture"} & metadata.keys()) or any(".lora_" in name for name in names)


def _identity(model: str) -> str:
    """Return what distinguishes a model from a later one of the same name: its files' contents, or a hub id as it is."""
    path = Path(model)
    if path.is_file():
        return file_digest(path)
    if path.is_dir():
        stamps = [
            (file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted(path.rglob("*"))
            if file.is_file()
        ]
        return hashlib.sha256(repr(stamps).encode()).hexdigest()
    from fluxsr.models.sources import ModelSource

    shipped = ModelSource(model).path
    return model if shipped is None else _identity(str(shipped))
