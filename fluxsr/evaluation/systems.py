"""Defines what can be measured: a folder of results, bicubic, a model of ours, or any that spandrel loads."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fluxsr.digest import file_digest
from fluxsr.evaluation.cost import CostMeter
from fluxsr.images import check_sizes, match_names, read_image
from fluxsr.images.resize import imresize, rounded

if TYPE_CHECKING:
    from fluxsr.evaluation.testset import TestSet
    from fluxsr.inference import Upscaler
    from fluxsr.inference.engine import ColorFix

PEER_SUFFIXES = (".pth", ".pt", ".ckpt")


@dataclass
class System:
    """One system: a folder of results, or what restores images.

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
            picture = rounded(self.restore(lr_image, size).float().cpu())
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
        """Restore an image once more to count multiply-accumulates by stage; ``None`` where they can't be counted."""
        if self.meter is None or self.restore is None:
            return None
        self.meter.reset()
        try:
            with torch.inference_mode(), self.meter.counting():
                self.restore(lr_image, size)
        except (RuntimeError, NotImplementedError, TypeError):  # a compiled or quantized network, of unknown operations
            return None
        return {**self.meter.macs, "total": sum(self.meter.macs.values())}


def folder_system(name: str, folder: str | Path, testset: TestSet) -> System:
    """Return a folder of results, named as the test set's images, as a system.

    Raises:
        ValueError: Naming the images that are missing, extra, ambiguous or of another size.
    """
    matching = match_names(list(testset.items), folder, name)
    check_sizes(matching.files, {key: item.size for key, item in testset.items.items()}, name)
    return System(name, str(folder), files=matching.files, how=matching.how)


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
    from fluxsr.inference import Upscaler

    load = partial(Upscaler.from_pretrained, device=device)
    (system,) = load_systems(model, load, device, [steps], [color_fix])
    return replace(system, name=name or _name_of(model))


def load_systems(
    entry: str,
    load: Callable[[str], Upscaler],
    device: str = "auto",
    steps: Sequence[int] = (1,),
    color_fixes: Sequence[ColorFix] = ("wavelet",),
) -> list[System]:
    """Load a model once, and return a system for each number of steps with each color fix; what spandrel loads has neither.

    ``entry`` is a model as for :func:`load_model`, or ``NAME=MODEL``; what distinguishes several systems is added to the name.
    ``load`` loads a model of ours.
    """
    name, model = name_and_model(entry)
    if min(steps) < 1:
        raise ValueError(f"steps must be at least 1, got {min(steps)}")
    if is_peer(model):
        if max(steps) > 1:
            raise ValueError(
                f"{model} knows no steps: measure it in another call than models of ours in {max(steps)} steps"
            )
        return [_load_peer(Path(model), name, device)]
    upscaler = load(model)
    networks = [upscaler.velocity, upscaler.autoencoder]
    count = sum(p.numel() for one in networks if isinstance(one, nn.Module) for p in one.parameters())
    identity = _identity(upscaler)
    # They are measured one after the other, so that one meter is enough.
    meter = CostMeter(upscaler.device)
    metered = _metered(upscaler, meter)
    systems = []
    for number, fix in product(steps, color_fixes):
        said = [name]
        said += [f"{number} step{'s' if number > 1 else ''}"] if [*steps] != [1] else []
        said += [f"color fix {fix}"] if [*color_fixes] != ["wavelet"] else []
        variant = copy(metered)
        variant.color_fix = fix
        own = f"{identity}, {number} steps, color fix {fix}"
        restore = partial(_restored, variant, number)
        systems.append(System(", ".join(said), model, own, restore=restore, meter=meter, parameters=count))
    return systems


def name_and_model(entry: str) -> tuple[str, str]:
    """Return the two parts of ``NAME=MODEL``; without a name it is the model's own."""
    name, sign, model = entry.partition("=")
    return (name, model) if sign else (_name_of(entry), entry)


def _name_of(model: str) -> str:
    path = Path(model)
    return path.stem if path.suffix in (*PEER_SUFFIXES, ".safetensors") else path.name


def is_peer(model: str) -> bool:
    """Say whether a model is a file of another project, which spandrel loads."""
    from fluxsr.models.weight_files import read_header

    path = Path(model)
    if path.suffix != ".safetensors" or not path.is_file():
        return path.suffix in PEER_SUFFIXES
    names, metadata = read_header(path)
    return not {"start_time", "architecture"} & metadata.keys() and not any(".lora_" in name for name in names)


def _metered(upscaler: Upscaler, meter: CostMeter) -> Upscaler:
    """Return an upscaler of the same networks, whose calls are stages of a meter."""
    twin, autoencoder = copy(upscaler), copy(upscaler.autoencoder)
    for stage in ("encode", "decode"):  # of the copy alone, which is still of its class
        setattr(autoencoder, stage, meter.stage(stage)(getattr(autoencoder, stage)))
    twin.velocity, twin.autoencoder = meter.stage("velocity")(upscaler.velocity.__call__), autoencoder
    return twin


def _identity(upscaler: Upscaler) -> str:
    """Return what distinguishes a loaded model from every other, wherever it was loaded from."""
    from fluxsr.models.weight_files import weights_digest

    velocity: Any = upscaler.velocity
    autoencoder: Any = upscaler.autoencoder
    facts = [weights_digest(velocity), velocity.prompt.digest, velocity.quantization, autoencoder.fingerprint()]
    facts += [upscaler.record, upscaler.start_time, upscaler.window, upscaler.grid_fix, upscaler.ensemble]
    if velocity.quantization is not None:  # whose weights have no bytes that the digest could read
        facts += [float(parameter.detach().dequantize().float().abs().mean()) for parameter in velocity.parameters()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _restored(upscaler: Upscaler, steps: int, lr_image: Tensor, size: tuple[int, int]) -> Tensor:
    result = upscaler.upscale_pixels(lr_image[0].permute(1, 2, 0).numpy(), size=size, steps=steps)
    return torch.from_numpy(result).permute(2, 0, 1)[None]


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

    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    return System(name, str(path), file_digest(path), restore=restore, meter=meter, parameters=parameters)


def _state_dict(path: Path) -> dict[str, Any]:
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
