"""Upscales photos of any size by any factor in bounded memory."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from fluxsr.flows.solvers import time_grid
from fluxsr.images.convert import Pixels, unpack_image
from fluxsr.inference.engine import ColorFix, Progress, StripRun
from fluxsr.inference.ensemble import ShiftedMean
from fluxsr.inference.form import MemoryPlan, choose_form, take_form
from fluxsr.inference.loading import find_student, window_of
from fluxsr.inference.memory import affordable_tile, bytes_per_pixel, is_out_of_memory, memory_limit
from fluxsr.inference.settings import SCALE, Sizes, check_numbers
from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.student import StudentRecord
from fluxsr.protocols import Autoencoder, VelocityModel

logger = logging.getLogger(__name__)


class Upscaler:
    """Upscales images with a one-step (or few-step) super-resolver, tile by tile.

    The image is enlarged bicubically to its final size, whatever the scale, and then restored: encoded, taken from
    ``start_time`` to 0, decoded. Scales of 1 and below restore without enlarging. Everything runs in strips of rows, so beside
    the image and its result only a few strips are in memory, for several steps too.

    Two sizes differ. The *window* is what the model sees at a time and belongs to the model. The shipped student was trained
    on 128-pixel crops, and it gets worse where it sees more at a time. The *tile* belongs to the device: it is how many
    pixels are computed at a time. So another tile gives the same picture, as long as it is no smaller than the window.

    Args:
        velocity: The student, any velocity model.
        autoencoder: Autoencoder that it was trained with.
        start_time: Time of the LR latents, in ``(0, 1]``.
        window: Side in pixels of what the model sees at a time; ``None``: the whole tile.
        tile: Side in pixels of what is computed at a time; ``"auto"`` chooses from the free memory, ``None`` sets no limit.
            After running out of memory it is halved.
        color_fix: ``"wavelet"`` takes the low frequencies from the enlarged image, ``"adain"`` the mean and deviation of each
            channel; both look at the image as a whole. With ``"wavelet"``, the default, the shipped student gains 0.01 dB
            on Set14 under bicubic reduction and 0.02 dB on camera pairs, and loses 0.01 dB under Real-ESRGAN's degradation.
        grid_fix: Remove the part of the change that repeats from token to token, the grid that transformers leave
            (:func:`fluxsr.inference.grid.token_grid`). Results of fewer than 17 tokens a side stay as they are.
        ensemble: Average four passes that are shifted by half a token (:class:`fluxsr.inference.ensemble.ShiftedMean`):
            closer to the original and softer, at four times the work of the model.
        device: Device that the parts run on; by default that of the velocity model's parameters.
        memory_plan: Form that was chosen for a limited memory (:meth:`plan`); its tile is ``"auto"``'s.
        record: What the student is besides its weights, where that is known.

    Raises:
        ValueError: If a number is out of range or ``color_fix`` unknown.

    Example:
        >>> from PIL import Image
        >>> upscaler = Upscaler.from_pretrained()
        >>> upscaler(Image.new("RGB", (10, 7)), scale=2.5).size
        (25, 18)
    """

    def __init__(
        self,
        velocity: VelocityModel,
        autoencoder: Autoencoder,
        start_time: float,
        *,
        window: int | None = None,
        tile: int | Literal["auto"] | None = "auto",
        color_fix: ColorFix = "wavelet",
        grid_fix: bool = True,
        ensemble: bool = False,
        device: torch.device | str | None = None,
        memory_plan: MemoryPlan | None = None,
        record: StudentRecord | None = None,
    ) -> None:
        if not 0 < start_time <= 1:
            raise ValueError(f"start_time must lie in (0, 1], got {start_time}")
        if color_fix not in get_args(ColorFix):
            raise ValueError(f"color_fix must be one of {', '.join(get_args(ColorFix))}, got {color_fix!r}")
        self.smallest = 4 * autoencoder.downsample  # 2x2 patches of latents, and room for an overlap
        for name, value in (("tile", tile), ("window", window)):
            if value is not None and value != "auto" and (isinstance(value, str) or value < self.smallest):
                raise ValueError(f"{name} must be at least {self.smallest} pixels for this autoencoder, got {value}")
        self.velocity = velocity
        self.ensemble = ensemble
        self.autoencoder = autoencoder
        self.start_time = start_time
        self.window = window
        self.record = record or StudentRecord()
        self.memory_plan = memory_plan
        self.tile = tile
        self.color_fix = color_fix
        self.grid_fix = grid_fix
        self._told: set[int] = set()
        parameter = next(velocity.parameters(), None) if isinstance(velocity, nn.Module) else None
        self.device = torch.device(device or (parameter.device if parameter is not None else "cpu"))

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        lora: str | Path | None = None,
        prompt: str | Path | None = None,
        guidance: float | None = None,
        autoencoder: str | None = None,
        start_time: float | None = None,
        window: int | None = None,
        device: str = "auto",
        dtype: DType | None = None,
        memory: str | None = None,
        revision: str | None = None,
        tile: int | Literal["auto"] | None = "auto",
        color_fix: ColorFix = "wavelet",
        grid_fix: bool = True,
        ensemble: bool = False,
        say: Callable[[str], None] = logger.info,
    ) -> Upscaler:
        """Load a super-resolver, by default the shipped student.

        With ``lora`` or ``start_time``, ``model`` can be a base in diffusers' layout. What is not given is as the file says.
        Without a word there, the window is 128 pixels for models on pixels, and 1024 for those on FLUX's latents.

        Args:
            model: Shipped name, ``.safetensors`` file, hub id or folder (default: nano-student).
            lora: Adapter file; ``model`` must then name its base.
            prompt: File of ``fluxsr prompt``, as used in training.
            guidance: Guidance of models that embed one (FLUX.1-dev: 3.5).
            autoencoder: ``pixel``, a hub id or a folder (default: its own).
            start_time: Time of the LR latents (default: as the file says).
            window: Side in pixels of what the model sees at a time (default: as the file says).
            device: Device: auto, cuda, mps or cpu.
            dtype: Dtype of the weights (default: bfloat16 for FLUX on a GPU, else float32).
            memory: Memory to fit into: 12GB, or auto for what is free.
            revision: Revision of the hub repository.
            tile: Side in pixels of the area computed at a time; off sets no limit.
            color_fix: Keep the input's low frequencies (wavelet) or its mean and deviation (adain).
            grid_fix: Remove the grid of the tokens.
            ensemble: Average four shifted passes: faithful but softer.
            say: Called, before anything is loaded, with what was chosen for ``memory``, and the expected peak.

        Raises:
            ValueError: If something can't be loaded, doesn't fit, or is not known, with what to do.
        """
        place = choose_device(device)
        student = find_student(model, lora, revision=revision, start_time=start_time, window=window, guidance=guidance)
        dtype = dtype or ("bfloat16" if place.type != "cpu" and not student.source.is_file else "float32")
        check_dtype(dtype)
        options: dict[str, Any] = {"color_fix": color_fix, "grid_fix": grid_fix, "ensemble": ensemble}

        def load(onto: torch.device) -> Upscaler:
            velocity = student.backbone(None if prompt is None else str(prompt), dtype, onto)
            vae = student.autoencoder(velocity, autoencoder, dtype, onto)
            own: dict[str, Any] = {
                "window": window_of(student.record, vae),
                "tile": tile,
                "device": onto,
                "record": student.record,
            }
            return cls(velocity, vae, student.start_time, **own, **options)

        if memory is None:
            return load(place)
        # Planned without a weight first.
        plan = load(torch.device("meta")).plan(memory_limit(memory, place), place)
        say(plan.words())
        return load(torch.device("cpu")).fitted(plan, place)

    @property
    def scale(self) -> float:
        """Magnification that the student was trained for, 4 where that is not known."""
        return self.record.scale or SCALE

    def plan(self, limit: int, place: torch.device) -> MemoryPlan:
        """Return the form in which the model fits; see :func:`fluxsr.inference.form.choose_form`, which explains the errors.

        Args:
            limit: Bytes that may be used on the device.
            place: The device.
        """
        velocity: Any = self.velocity
        return choose_form(velocity, self.autoencoder, self.start_time, self.window, limit, cuda=place.type == "cuda")

    def fitted(self, plan: MemoryPlan, place: torch.device) -> Upscaler:
        """Return the upscaler, whose networks lie in main memory, in the form that was planned, on the device."""
        velocity: Any = self.velocity
        velocity, autoencoder = take_form(velocity, self.autoencoder, self.start_time, plan, place)
        return self.changed(
            velocity=velocity, autoencoder=autoencoder, window=plan.window, device=place, memory_plan=plan
        )

    def changed(self, **changes: Any) -> Upscaler:
        """Return an upscaler with other arguments of the class than this one's; the networks are shared."""
        own = {name: getattr(self, name) for name in inspect.signature(Upscaler).parameters}
        return Upscaler(**{**own, **changes})

    def __call__(
        self,
        image: Any,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        steps: int = 1,
        progress: Progress | None = None,
        *,
        longest: int | None = None,
        width: int | None = None,
        height: int | None = None,
        strength: float = 1.0,
    ) -> Any:
        """Upscale an image; what comes back is of the kind that was given.

        Args:
            image: A PIL image; an array ``(H, W)`` or ``(H, W, C)`` of uint8, uint16 or floating point in ``[0, 1]``; or a
                tensor ``(C, H, W)`` or ``(B, C, H, W)``. One channel is gray, three RGB; a second or fourth is alpha, which
                is enlarged bicubically. PIL's palettes and CMYK become RGB.
            scale: Any positive number; each side becomes ``round(scale * side)``, at least 1. ``None``: what the student was
                trained for (:attr:`scale`).
            size: (height, width) of the result, instead of ``scale``.
            steps: Euler steps from ``start_time`` to 0.
            progress: Called with the number of windows done and of all windows.
            longest: Longest side of the result in pixels, instead of ``scale``.
            width: Width of the result in pixels, instead of ``scale``.
            height: Height of the result in pixels, instead of ``scale``.
            strength: How far to go, in ``[0, 2]``: 0 is the input itself, encoded and decoded, 1 what the model was trained
                for, and more goes beyond that.

        Raises:
            TypeError: If ``image`` is none of these.
            ValueError: If its shape or range, or an argument, is not right; if the model's result has NaN; if not even the
                smallest tile fits into memory.
        """
        batch, give_back = unpack_image(image)
        sizes = Sizes(self.scale if scale is None else scale, size, longest, width, height)
        return give_back(
            [self.upscale_pixels(one, sizes.of(*one.shape[:2]), steps, progress, strength=strength) for one in batch]
        )

    @torch.inference_mode()
    def upscale_pixels(
        self,
        pixels: Pixels,
        size: tuple[int, int],
        steps: int = 1,
        progress: Progress | None = None,
        *,
        strength: float = 1.0,
    ) -> Pixels:
        """Upscale ``(H, W, C)`` pixels to an array of the same dtype and channels, of ``size`` (height, width).

        Raises:
            ValueError: As the call.
        """
        check_numbers(steps, strength)
        rows, columns = size
        # Strips lie across the longer side: however long an image is, they are short.
        turned = columns > rows
        source = pixels.swapaxes(0, 1) if turned else pixels
        shape = (columns, rows) if turned else (rows, columns)
        first_limit = limit = self._tile_limit(max(shape))
        while True:
            try:
                result = StripRun(
                    ShiftedMean(self.velocity) if self.ensemble else self.velocity,
                    self.autoencoder,
                    source,
                    shape,
                    times=time_grid(self.start_time, 0.0, steps),
                    window=self.window,
                    tile=limit,
                    turned=turned,
                    color_fix=self.color_fix,
                    grid_fix=self.grid_fix,
                    device=self.device,
                    strength=float(strength),
                    progress=progress,
                ).result()
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                limit = min(limit, max(shape)) // 2
                if limit < self.smallest:
                    raise ValueError(
                        f"out of memory on {self.device} even in the smallest tiles: free some, or use another device"
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # outside of the handler, which keeps the failed tensors alive
        if limit != first_limit:
            logger.warning("out of memory on %s: working in tiles of %d pixels from now on", self.device, limit)
            self.tile = limit
            self._tell_window(limit)
        return result.swapaxes(0, 1) if turned else result

    def _tile_limit(self, longest: int) -> int:
        """Return the side in pixels of the tile to begin with."""
        if self.memory_plan is not None and self.tile == "auto":
            return self.memory_plan.tile
        if self.tile is None:
            return max(longest, self.window or 0)
        if self.tile != "auto":
            return int(self.tile)
        # A GPU wants much work at a time; a CPU is no faster for more than a few windows.
        largest = max(self.window or 512, 1024 if self.device.type != "cpu" else 128)
        pixel_bytes = bytes_per_pixel(self.velocity, self.autoencoder)
        tile = affordable_tile(self.device, pixel_bytes, 8 * self.smallest, largest)
        self._tell_window(tile)
        return tile

    def _tell_window(self, tile: int) -> None:
        """Say, once for each size, that the model sees less at a time than it was trained with."""
        if self.window is not None and tile < self.window and tile not in self._told:
            self._told.add(tile)
            logger.warning(
                "too little free memory on %s for the window of %d pixels that the model was trained with: it sees %d at a "
                "time, which costs quality; free some memory, or give the tile",
                self.device,
                self.window,
                tile,
            )
