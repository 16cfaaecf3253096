"""Photos of any size, upscaled by any factor in bounded memory: resize, encode, flow, decode, colour, strip by strip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fluxsr.flows import euler
from fluxsr.flows.solvers import time_grid
from fluxsr.images.convert import Pixels, has_alpha, to_pixels, to_tensor, unpack_image
from fluxsr.images.resize import Resized, output_size
from fluxsr.inference.colour import Moments, adain, wavelet_rows
from fluxsr.inference.memory import BYTES_PER_PIXEL, affordable_tile, is_out_of_memory
from fluxsr.inference.source import Source
from fluxsr.inference.strips import RowBuffer, RowSource, blended
from fluxsr.models import PixelAutoencoder
from fluxsr.models.tiling import spans
from fluxsr.protocols import Autoencoder, VelocityModel

ColorFix = Literal["wavelet", "adain", "none"]
Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)

# Rows that the last stage finishes at a time: many against the 31 that the wavelet fix filters beyond them on each side.
_ROWS = 256
_GRAY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


class Upscaler:
    """Upscales images with a one-step (or few-step) super-resolver, tile by tile.

    The image is enlarged bicubically to its final size, whatever the scale, and then restored: encoded, taken from
    ``start_time`` to 0, decoded. Scales of 1 and below restore without enlarging. Everything runs in strips of rows, so beside
    the image and its result only a few strips are in memory, for several steps too.

    Two sizes are to be told apart. The *window* is what the model sees at a time and belongs to the model: the shipped student
    was trained on 128-pixel crops, and shown more at a time it gets worse. The *tile* belongs to the device: it is how many
    pixels are computed at a time. So another tile gives the same picture, as long as it is no smaller than the window.

    Args:
        velocity: the student, any velocity model.
        autoencoder: that it was trained with.
        start_time: time of the LR latents, in ``(0, 1]``.
        window: side in pixels of what the model sees at a time; ``None``: the whole tile.
        tile: side in pixels of what is computed at a time; ``"auto"`` chooses from the free memory, ``None`` sets no limit.
            After running out of memory it is halved.
        color_fix: ``"wavelet"`` takes the low frequencies from the enlarged image, ``"adain"`` the mean and deviation of each
            channel; both look at the image as a whole. With ``"wavelet"``, the default, the shipped student gains 0.08 dB on
            Set14 under bicubic reduction and 0.06 dB on camera pairs, and loses 0.02 dB under Real-ESRGAN's degradation.
        device: where the parts run; by default where the velocity model's parameters are.

    Raises:
        ValueError: if a number is out of range or ``color_fix`` unknown.

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
        device: torch.device | str | None = None,
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
        self.autoencoder = autoencoder
        self.start_time = start_time
        self.window = window
        self.tile = tile
        self.color_fix = color_fix
        parameter = next(velocity.parameters(), None) if isinstance(velocity, nn.Module) else None
        self.device = torch.device(device or (parameter.device if parameter is not None else "cpu"))

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Upscaler:
        """Load a super-resolver, by default the shipped student.

        See :func:`fluxsr.inference.loading.load_upscaler` for the options and errors.
        """
        from fluxsr.inference.loading import load_upscaler

        return load_upscaler(model, **options)

    def __call__(
        self,
        image: Any,
        scale: float = 4,
        size: tuple[int, int] | None = None,
        steps: int = 1,
        progress: Progress | None = None,
    ) -> Any:
        """Upscale an image; what comes back is of the kind that was given.

        Args:
            image: a PIL image; an array ``(H, W)`` or ``(H, W, C)`` of uint8, uint16 or floating point in ``[0, 1]``; or a
                tensor ``(C, H, W)`` or ``(B, C, H, W)``. One channel is gray, three RGB; a second or fourth is alpha, which
                is enlarged bicubically. PIL's palettes and CMYK become RGB.
            scale: any positive number; each side becomes ``round(scale * side)``, at least 1.
            size: (height, width) of the result, instead of ``scale``.
            steps: Euler steps from ``start_time`` to 0.
            progress: called with the number of windows done and of all windows.

        Raises:
            TypeError: if ``image`` is none of these.
            ValueError: if its shape or range, or an argument, is not right; if not even the smallest tile fits into memory.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        batch, give_back = unpack_image(image)
        return give_back([self.upscale_pixels(pixels, scale, size, steps, progress) for pixels in batch])

    @torch.inference_mode()
    def upscale_pixels(
        self,
        pixels: Pixels,
        scale: float = 4,
        size: tuple[int, int] | None = None,
        steps: int = 1,
        progress: Progress | None = None,
    ) -> Pixels:
        """Upscale ``(H, W, C)`` pixels to an array of the same dtype and channels; the arguments are those of the call.

        Raises:
            ValueError: as the call; and if not even the smallest tile fits the memory.
        """
        height, width = output_size(pixels.shape[0], pixels.shape[1], scale, size)
        # Strips lie across the longer side: however long an image is, they are short.
        turned = width > height
        source = pixels.swapaxes(0, 1) if turned else pixels
        shape = (width, height) if turned else (height, width)
        first_limit = limit = self._tile_limit(max(shape))
        while True:
            try:
                result = _Run(self, source, shape, steps, turned, limit, progress).result()
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
        return result.swapaxes(0, 1) if turned else result

    def _tile_limit(self, longest: int) -> int:
        """Return the side in pixels of the tile to begin with."""
        if self.tile is None:
            return max(longest, self.window or 0)
        if self.tile != "auto":
            return int(self.tile)
        kind = "pixel" if isinstance(self.autoencoder, PixelAutoencoder) else "latent"
        # A GPU wants much work at a time; a CPU is no faster for more than a few windows.
        largest = max(self.window or 512, 1024 if self.device.type != "cpu" else 128)
        return affordable_tile(self.device, BYTES_PER_PIXEL[kind], 8 * self.smallest, largest)


class _Run:
    """One image on its way through the stages, at one tile size."""

    def __init__(
        self,
        upscaler: Upscaler,
        pixels: Pixels,
        size: tuple[int, int],
        steps: int,
        turned: bool,
        tile: int,
        progress: Progress | None,
    ) -> None:
        self.upscaler = upscaler
        self.autoencoder = upscaler.autoencoder
        self.size = size
        self.turned = turned
        self.steps = steps
        self.pixels = pixels
        self.progress = progress or (lambda done, total: None)
        self.done = 0
        downsample = self.autoencoder.downsample
        self.latent_size = (_blocks(size[0], 2 * downsample) * 2, _blocks(size[1], 2 * downsample) * 2)
        window = min(upscaler.window or tile, tile)
        # In latent positions, and even.
        self.window = max(2, window // downsample // 2 * 2)
        self.overlap = self.window // 4
        self.batch = max(1, (tile // window) ** 2)
        source = Source(pixels)
        self.enlarged = Resized(
            source.colour, source.size, size, (self.latent_size[0] * downsample, self.latent_size[1] * downsample)
        )
        self.alpha = Resized(source.alpha, source.size, size) if has_alpha(pixels) else None

    def result(self) -> Pixels:
        """Return the upscaled pixels, of the dtype and the channels that came in."""
        height, width = self.size
        result = np.empty((height, width, self.pixels.shape[2]), self.pixels.dtype)
        restored = RowBuffer(self.restored())
        if self.upscaler.color_fix == "adain":
            self.fix_moments(restored, result)
        else:
            for top, bottom in self.blocks():
                if self.upscaler.color_fix == "wavelet":
                    rows = wavelet_rows(restored, self.enlarged, top, bottom, height)
                else:
                    rows = restored.rows(top, bottom)
                self.write(result, top, rows)
        if self.alpha is not None:
            for top, bottom in self.blocks():
                result[top:bottom, :, -1:] = to_pixels(self.alpha.rows(top, bottom), result.dtype)
        return result

    def restored(self) -> Iterator[Tensor]:
        """Return the strips of the restored image: the stages, each drawing on the one before."""
        latents = self.stage(self.autoencoder.encode, self.enlarged, reads=self.autoencoder.downsample)
        times = time_grid(self.upscaler.start_time, 0.0, self.steps)
        self.total = self.steps * np.prod([len(spans(side, self.window, self.overlap)) for side in self.latent_size])
        self.progress(0, int(self.total))
        for t, s in pairwise(times):
            latents = self.stage(self.euler_step(t, s), RowBuffer(latents))
        strips = self.stage(self.autoencoder.decode, RowBuffer(latents), writes=self.autoencoder.downsample)
        return (strip[..., : self.size[1]].clamp(0, 1) for strip in strips)

    def stage(
        self, function: Callable[[Tensor], Tensor], source: RowSource, reads: int = 1, writes: int = 1
    ) -> Iterator[Tensor]:
        """Return the strips of ``function`` applied in windows, on the device and with the image the right way round."""

        def on_device(windows: Tensor) -> Tensor:
            windows = windows.to(self.upscaler.device)
            result = function(windows.mT.contiguous()).mT if self.turned else function(windows)
            return result.float().cpu()

        # What is exact position by position needs no blending.
        exact = reads * writes > 1 and isinstance(self.autoencoder, PixelAutoencoder)
        return blended(
            on_device,
            source,
            self.latent_size,
            tile=self.window,
            overlap=0 if exact else self.overlap,
            batch=self.batch,
            reads=reads,
            writes=writes,
        )

    def euler_step(self, t: float, s: float) -> Callable[[Tensor], Tensor]:
        """Return one Euler step from ``t`` to ``s``. Blending after the step is blending the velocities: weights sum to one."""

        def step(windows: Tensor) -> Tensor:
            result = euler(self.upscaler.velocity, windows, t, s, 1)
            self.done += len(windows)
            self.progress(self.done, int(self.total))
            return result

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
        """Put RGB rows into the result's colour channels."""
        colours = 1 if result.shape[2] < 3 else 3
        rows = (rows * _GRAY).sum(dim=0, keepdim=True) if colours == 1 else rows
        result[top : top + rows.shape[1], :, :colours] = to_pixels(rows, result.dtype)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the (top, bottom) of the blocks of rows that the last stage works in."""
        for top in range(0, self.size[0], _ROWS):
            yield top, min(top + _ROWS, self.size[0])


def _blocks(length: int, block: int) -> int:
    return -(-length // block)
