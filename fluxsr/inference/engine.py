"""Passes one image through the stages strip by strip: resize, encode, flow, decode, grid, color."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fluxsr.flows import euler
from fluxsr.images.convert import Pixels, color_count, has_alpha, to_pixels, to_tensor
from fluxsr.images.resize import Resized
from fluxsr.inference.color import Moments, PixelRows, adain, wavelet_rows
from fluxsr.inference.grid import Trimmed, WithoutGrid, enough_tokens
from fluxsr.inference.strips import RowBuffer, RowSource, blended
from fluxsr.models import PixelAutoencoder
from fluxsr.models.tiling import spans
from fluxsr.protocols import Autoencoder, VelocityModel

ColorFix = Literal["wavelet", "adain", "none"]
Progress = Callable[[int, int], None]

# Rows that the last stage finishes at a time: many against the 31 that the wavelet fix filters beyond them on each side.
_ROWS = 256
_GRAY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


@dataclass
class StripRun:
    """One image on its way through the stages, at one tile size."""

    velocity: VelocityModel
    autoencoder: Autoencoder
    pixels: Pixels  # (H, W, C), the longer side vertical
    size: tuple[int, int]  # (height, width) of the result
    times: Sequence[float]  # of the steps, from the start time down to 0
    window: int | None  # side in pixels of what the model sees at a time; None: the tile
    tile: int  # side in pixels of what is computed at a time
    turned: bool  # whether height and width were exchanged
    color_fix: ColorFix
    grid_fix: bool
    device: torch.device
    strength: float  # share of the way from the input's latents to the model's
    progress: Progress | None

    def __post_init__(self) -> None:
        # Of no strength, one step is as good as many, and is not rounded as often.
        self.times = self.times if self.strength else (self.times[0], self.times[-1])
        self.done = 0
        downsample = self.autoencoder.downsample
        self.token = 2 * downsample
        height, width = (-(-side // self.token) * 2 for side in self.size)
        self.latent_size = (height, width)
        self.grid_fix = self.grid_fix and enough_tokens(self.size, self.token)
        window = min(self.window or self.tile, self.tile)
        self.positions = max(2, window // downsample // 2 * 2)  # of a window along one side, even
        self.overlap = self.positions // 4
        self.batch = max(1, (self.tile // window) ** 2)
        source = PixelRows(self.pixels)
        self.enlarged = Resized(source.color, source.size, self.size, (height * downsample, width * downsample))
        self.alpha = Resized(source.alpha, source.size, self.size) if has_alpha(self.pixels) else None

    def result(self) -> Pixels:
        """Return the upscaled pixels, of the dtype and the channels that came in."""
        height, width = self.size
        result = np.empty((height, width, self.pixels.shape[2]), self.pixels.dtype)
        rows: RowSource = RowBuffer(self.restored())
        if self.grid_fix:
            rows = WithoutGrid(rows, self.enlarged, self.latent_size[0] * self.autoencoder.downsample, self.token)
        restored = Trimmed(rows, width)
        if self.color_fix == "adain":
            self.fix_moments(restored, result)
        else:
            for top, bottom in self.blocks():
                if self.color_fix == "wavelet":
                    block = wavelet_rows(restored, self.enlarged, top, bottom, height)
                else:
                    block = restored.rows(top, bottom)
                self.write(result, top, block)
        if self.alpha is not None:
            for top, bottom in self.blocks():
                result[top:bottom, :, -1:] = to_pixels(self.alpha.rows(top, bottom), result.dtype)
        return result

    def restored(self) -> Iterator[Tensor]:
        """Return the strips of the restored image: the stages, each drawing on the one before."""
        latents = self.stage(self.autoencoder.encode, self.enlarged, reads=self.autoencoder.downsample)
        windows = math.prod(len(spans(side, self.positions, self.overlap)) for side in self.latent_size)
        self.total = (len(self.times) - 1) * windows
        self.report()
        for t, s in pairwise(self.times):
            latents = self.stage(self.euler_step(t, s), RowBuffer(latents))
        strips = self.stage(self.autoencoder.decode, RowBuffer(latents), writes=self.autoencoder.downsample)
        return (_finite(strip) for strip in strips)

    def stage(
        self, function: Callable[[Tensor], Tensor], source: RowSource, reads: int = 1, writes: int = 1
    ) -> Iterator[Tensor]:
        """Return the strips of ``function`` applied in windows, on the device and with the image the right way round."""

        def on_device(windows: Tensor) -> Tensor:
            windows = to_device(windows, self.device)
            result = function(windows.mT.contiguous()).mT if self.turned else function(windows)
            return to_host(result.float())

        # What is exact position by position needs no blending.
        exact = reads * writes > 1 and isinstance(self.autoencoder, PixelAutoencoder)
        return blended(
            on_device,
            source,
            self.latent_size,
            tile=self.positions,
            overlap=0 if exact else self.overlap,
            batch=self.batch,
            reads=reads,
            writes=writes,
        )

    def report(self) -> None:
        """Say how many windows are done."""
        if self.progress is not None:
            self.progress(self.done, self.total)

    def euler_step(self, t: float, s: float) -> Callable[[Tensor], Tensor]:
        """Return one Euler step from ``t`` to ``s``. Blending after the step is blending the velocities: weights sum to one.

        At another strength than 1 the input's latents go along, behind the state's channels, until the last step, which takes
        that share of the whole way.
        """
        first, last, strength = t == self.times[0], s == self.times[-1], self.strength

        def step(windows: Tensor) -> Tensor:
            state, origin = (windows, windows) if first or strength == 1 else windows.chunk(2, dim=1)
            result = euler(self.velocity, state, t, s, 1) if strength else state
            self.done += len(windows)
            self.report()
            if strength == 1:
                return result
            if last:
                return origin + strength * (result - origin)
            return torch.cat([result, origin], dim=1)

        return step

    def fix_moments(self, restored: RowSource, result: Pixels) -> None:
        """Write the restored image with the channel means and deviations of the enlarged one.

        These are known only at the end, so the restored image is kept until then, at 16 bit in place of 8.
        """
        height, width = self.size
        kept = np.empty((height, width, 3), np.uint16 if np.issubdtype(result.dtype, np.integer) else np.float32)
        ours, theirs = Moments(), Moments()
        for top, bottom in self.blocks():
            rows = restored.rows(top, bottom)
            kept[top:bottom] = to_pixels(rows, kept.dtype)
            ours.add(rows)
            theirs.add(self.enlarged.rows(top, bottom)[..., :width])
        gain, shift = adain(ours, theirs)
        for top, bottom in self.blocks():
            self.write(result, top, to_tensor(kept[top:bottom]) * gain + shift)

    def write(self, result: Pixels, top: int, rows: Tensor) -> None:
        """Put RGB rows into the result's color channels."""
        colors = color_count(result)
        rows = (rows * _GRAY).sum(dim=0, keepdim=True) if colors == 1 else rows
        result[top : top + rows.shape[1], :, :colors] = to_pixels(rows, result.dtype)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the (top, bottom) of the blocks of rows that the last stage works in."""
        for top in range(0, self.size[0], _ROWS):
            yield top, min(top + _ROWS, self.size[0])


def _finite(strip: Tensor) -> Tensor:
    """Return a strip of the restored image, if it is one."""
    if not bool(strip.isfinite().all()):
        raise ValueError(
            "the model gave NaN or infinite values: its training has diverged, or its dtype is too narrow (try float32)"
        )
    return strip


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; for CUDA it is copied while the host goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """Return a tensor of a device in the host's memory, complete."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    copy = tensor.to("cpu", non_blocking=True)  # to pinned memory, which is then what PyTorch takes
    torch.cuda.current_stream(tensor.device).synchronize()
    return copy
