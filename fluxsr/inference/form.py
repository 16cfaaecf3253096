"""Chooses the form of a model that fits a memory, planned on tensors without contents before a weight is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from fluxsr.ledger import Ledger
from fluxsr.like_gpu import LikeDevice, like_device
from fluxsr.models import FluxBackbone, LatentAutoencoder, fold_modulation
from fluxsr.models.families import is_folded
from fluxsr.models.features import find_blocks
from fluxsr.models.quantization import Quantization, quantize_int8
from fluxsr.sizes import gigabytes

# Left to the CUDA context, the libraries' workspaces and fragmentation.
RESERVE = 1_000_000_000
DECODE_TILE = 512  # pixels of a tiled autoencoder; its tiles overlap by a quarter
_LARGEST = 1024  # pixels at a time, where the window is smaller
_SMALLER = (768, 512, 256)  # windows, where not even the leanest form fits with the model's own
INT8_BYTES = 1.0  # of a weight; a scale for each row is nothing beside it


class Form(NamedTuple):
    """The form in which a model is held."""

    folded: bool = False  # modulation layers are constants, and without a text its layers are left out
    quantize: Quantization | None = None  # format of the weights; None: their dtype
    by_block: bool = False  # weights stay in main memory and come block by block, the next while one computes
    tiled: bool = False  # the autoencoder works in tiles of DECODE_TILE pixels


class MemoryPlan(NamedTuple):
    """The form that was chosen, and what it takes."""

    form: Form
    dtype: str  # of what is not quantized
    tile: int  # side in pixels of what is computed at a time
    window: int  # side in pixels of what the model sees at a time
    peak_bytes: int  # the most that is on the device at a time
    parts: dict[str, int]  # of the peak, by kind
    limit_bytes: int  # that may be used: the memory without the reserve

    def words(self) -> str:
        """Return the plan in one line."""
        form = self.form
        chosen = [
            "folded" * form.folded,
            f"{form.quantize} weights" if form.quantize else self.dtype,
            "block by block from main memory" * form.by_block,
            f"autoencoder in tiles of {DECODE_TILE}" * form.tiled,
            f"{self.tile} pixels at a time",
        ]
        expected = f"expected peak {gigabytes(self.peak_bytes)} of {gigabytes(self.limit_bytes)}"
        return f"memory: {', '.join(word for word in chosen if word)}; {expected}"


def choose_form(
    velocity: FluxBackbone, autoencoder: Any, start_time: float, window: int | None, limit: int, *, cuda: bool
) -> MemoryPlan:
    """Return the first form that fits: from the fastest to the leanest, and those that change no bits first among equals."""
    window = window or _LARGEST
    least = None
    # Folded once, for all the forms that are: on the meta device, too, it builds a whole transformer.
    folded = cache(lambda: fold_modulation(velocity, start_time, fuse=True))
    foldable = not is_folded(velocity.transformer.config)
    for form, tile in _candidates(velocity, autoencoder, window):
        model = folded() if form.folded and foldable else velocity
        set_tiling(autoencoder, form.tiled)
        peak, parts = planned_peak(
            model, autoencoder, start_time, tile, window, quantize=form.quantize, by_block=form.by_block, cuda=cuda
        )
        dtype = str(velocity.dtype).removeprefix("torch.")
        plan = MemoryPlan(form, dtype, tile, min(window, tile), peak, parts, limit)
        if peak <= limit:
            return plan
        least = plan if least is None or peak < least.peak_bytes else least
    assert least is not None, "there is always a candidate"
    raise ValueError(
        f"this model takes at least {gigabytes(least.peak_bytes + RESERVE * cuda)} on the device, even block by block and in "
        f"tiles of {least.tile} pixels, and there are {gigabytes(limit + RESERVE * cuda)}: use a smaller model, or the CPU"
    )


def take_form(
    velocity: FluxBackbone, autoencoder: Any, start_time: float, plan: MemoryPlan, place: torch.device
) -> tuple[FluxBackbone, Any]:
    """Return networks that lie in main memory in the form that was planned, on the device that computes."""
    form = plan.form
    if form.folded and not is_folded(velocity.transformer.config):
        velocity = fold_modulation(velocity, start_time, fuse=True)  # the whole one is free to go
    if form.quantize is not None:
        quantize_int8(velocity.transformer, velocity.family)
        velocity.quantization = form.quantize
    set_tiling(autoencoder, form.tiled)
    if form.by_block:
        from diffusers.hooks.group_offloading import apply_group_offloading

        stream = place.type == "cuda"
        how: dict[str, Any] = {"num_blocks_per_group": 1, "use_stream": stream, "non_blocking": stream}
        apply_group_offloading(velocity.transformer, onload_device=place, offload_type="block_level", **how)
        for name, buffer in list(velocity.named_buffers(recurse=False)):
            velocity.register_buffer(name, buffer.to(place), persistent=False)
    else:
        velocity.to(place)
    return velocity, autoencoder.to(place)


def planned_peak(
    velocity: FluxBackbone,
    autoencoder: Any,
    start_time: float,
    tile: int,
    window: int,
    *,
    quantize: Quantization | None = None,
    by_block: bool = False,
    cuda: bool = True,
    device: str = "meta",
) -> tuple[int, dict[str, int]]:
    """Return the most bytes that are alive while one tile goes through the stages, and what they are, by kind.

    Args:
        velocity: The model, folded or not, on ``device``.
        autoencoder: Its autoencoder, there too.
        start_time: Time of the LR latents.
        tile: Side in pixels of what is computed at a time.
        window: Side in pixels of what the model sees at a time: of smaller ones, several go at a time.
        quantize: Format that the weights of the blocks get.
        by_block: Whether the weights come block by block.
        cuda: Whether kernels are a GPU's.
        device: ``meta``; or ``cpu``, where the same is measured on real tensors.
    """
    transformer: Any = velocity.transformer
    blocks = find_blocks(transformer)
    linears = {id(one.weight): one.weight for block in blocks for one in block.modules() if isinstance(one, nn.Linear)}
    share = 1.0 if quantize is None else INT8_BYTES / velocity.dtype.itemsize
    ledger = Ledger({"linears": share, "main memory": 0.0})
    in_flight = 0.0
    if by_block:
        sizes = sorted((_held(block, linears, share) for block in blocks), reverse=True)
        in_flight = _held(velocity, linears, share) - sum(sizes) + sum(sizes[:2])
    for tensor in _tensors(velocity):
        ledger.own(tensor, "main memory" if by_block else "linears" if id(tensor) in linears else "transformer")
    for tensor in _tensors(autoencoder):
        ledger.own(tensor, "autoencoder")
    # A layer with 8-bit weights unpacks them while it runs.
    unpacked = 0 if quantize is None else max((weight.nbytes for weight in linears.values()), default=0)
    side = min(window, tile)
    batch = max(1, (tile // side) ** 2)
    time = torch.full((batch,), start_time)
    with torch.no_grad(), like_device(LikeDevice(cuda)), ledger:
        with ledger.during("encode"):
            latents = autoencoder.encode(torch.zeros(batch, 3, side, side, device=device))
        with ledger.during("flow"):
            velocities = velocity(latents, time)
            latents = latents - start_time * velocities
            del velocities
        with ledger.during("decode"):
            autoencoder.decode(latents).float()
    found = {phase: dict(peak.parts) for phase, peak in ledger.peaks.items()}
    flow = found.setdefault("flow", {})
    for kind, size in (("blocks in flight", in_flight), ("unpacked weights", unpacked)):
        if size:
            flow[kind] = size
    top = max(found.values(), key=lambda parts: sum(parts.values()))
    parts = {kind: round(size) for kind, size in sorted(top.items(), key=lambda item: -item[1]) if size >= 1}
    return sum(parts.values()), parts


def set_tiling(autoencoder: Any, tiled: bool) -> None:
    """Switch diffusers' tiling of an autoencoder on or off; a pixel autoencoder needs none."""
    vae = getattr(autoencoder, "vae", None)
    if vae is None:
        return
    vae.disable_tiling()
    if tiled:
        vae.enable_tiling()
        vae.tile_sample_min_size = DECODE_TILE
        vae.tile_latent_min_size = DECODE_TILE // autoencoder.downsample


def _candidates(velocity: FluxBackbone, autoencoder: Any, window: int) -> Iterator[tuple[Form, int]]:
    """Yield forms, and how much is computed at a time, from the fastest to the leanest."""
    latent = isinstance(autoencoder, LatentAutoencoder)
    # Diffusers tiles AutoencoderTiny as if all had the four latent channels of taesd, and taef1 has sixteen.
    tileable = latent and type(autoencoder.vae).__name__ != "AutoencoderTiny"
    ready = velocity.quantization is not None
    forms = [Form(), Form(folded=True)]
    forms += [Form(folded=True, tiled=True)] * tileable
    if latent and not ready and importlib.util.find_spec("torchao") is not None:
        forms.append(Form(folded=True, quantize="int8"))
        forms += [Form(folded=True, quantize="int8", tiled=True)] * tileable
    if not ready:
        forms.append(Form(folded=True, by_block=True))
        forms += [Form(folded=True, by_block=True, tiled=True)] * tileable
    tiles = [side for side in (_LARGEST, 512, 256) if side > window]
    for form in forms:
        for tile in (*tiles, window):
            yield form, tile
    for tile in _SMALLER:
        if tile < window and tile >= 8 * autoencoder.downsample:
            yield forms[-1], tile


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _held(module: nn.Module, linears: dict[int, torch.Tensor], share: float) -> float:
    return sum(tensor.nbytes * (share if id(tensor) in linears else 1.0) for tensor in _tensors(module))
