"""Builds the page of ``fluxsr app``: it takes a photo, shows before and after, and offers the whole result."""

from __future__ import annotations

import html
import logging
import math
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from fluxsr.images import FORMATS, Picture, read_picture, write_picture
from fluxsr.images.convert import Pixels, color_count, has_alpha, to_pixels
from fluxsr.images.resize import Resized
from fluxsr.inference.color import PixelRows
from fluxsr.inference.engine import Progress
from fluxsr.inference.model_card import license_of
from fluxsr.inference.settings import Sizes
from fluxsr.inference.upscaler import Upscaler

LARGEST_SCALE = 8
MOST_STEPS = 8
# Browsers stutter over larger pictures; the download is whole.
VIEW_PIXELS = 12_000_000
# Uploads and results are looked at every minute, and deleted when they are an hour old.
DELETE_CACHE = (60, 3600)
_ROWS = 256

THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="stone",
    font=["system-ui", "sans-serif"],  # plain names: nothing is fetched for them
    font_mono=["ui-monospace", "monospace"],
    radius_size="lg",
).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
)
CSS = """
.gradio-container {width: 100%; max-width: 1120px !important; margin: auto}
#title .html-container, #message .html-container, #license .html-container {padding: 0}
#title h1 {font-size: 1.75rem; letter-spacing: -.02em; margin: .5rem 0 .25rem}
#title p, #license p {color: var(--body-text-color-subdued); margin: 0}
#license p {font-size: .875rem}
#license a {margin: 0; padding: 0; color: inherit; text-decoration: underline}
#result .empty {min-height: 24rem}
#message p {margin: 0; padding: .7rem 1rem; border-radius: var(--radius-lg); overflow-wrap: anywhere}
#message .done {background: var(--background-fill-secondary)}
#message .problem {background: #fee2e2; color: #7f1d1d}
.dark #message .problem {background: #450a0a; color: #fecaca}
"""

logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """What an upscaled photo left in its folder: two views of one size, the whole result, and a sentence on what was done."""

    before: Path
    after: Path
    download: Path
    text: str


def upscale_upload(
    upscaler: Upscaler,
    upload: str | Path | None,
    scale: float,
    steps: int,
    folder: Path,
    max_pixels: int,
    progress: Progress | None = None,
    strength: float = 1.0,
) -> Result:
    """Upscale an uploaded file into PNGs in a new folder below ``folder``; a ValueError says what is wrong with it.

    Gradio's own limits of the sliders hold for the page alone, so that numbers are checked here.
    """
    if upload is None or not Path(upload).exists():
        raise ValueError("There is no photo: drop one. Uploads are deleted after an hour.")
    if not (scale is not None and 1 <= scale <= LARGEST_SCALE):
        raise ValueError(f"The scale must lie between 1 and {LARGEST_SCALE}, not at {scale}.")
    if not (steps is not None and 1 <= steps <= MOST_STEPS and steps == int(steps)):
        raise ValueError(f"The steps must be a whole number from 1 to {MOST_STEPS}, not {steps}.")
    if not (strength is not None and 0 <= strength <= 2):
        raise ValueError(f"The strength must lie between 0 and 2, not at {strength}.")
    start = time.perf_counter()
    path = Path(upload)
    try:
        picture = read_picture(path, max_pixels)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
    old_height, old_width = picture.pixels.shape[:2]
    height, width = Sizes(scale).of(old_height, old_width)
    if height * width > max_pixels:
        largest = math.floor(10 * math.sqrt(max_pixels / (old_height * old_width))) / 10
        raise ValueError(
            f"{path.name} would become {width}x{height}, {height * width / 1e6:.1f} million pixels: more than the limit of "
            f"{max_pixels / 1e6:g}. Choose a scale of at most {largest:g}, or start the page with a larger --max_pixels."
        )
    pixels = upscaler.upscale_pixels(picture.pixels, (height, width), int(steps), progress, strength=float(strength))
    place = folder / secrets.token_hex(8)
    download = after = place / f"{path.stem[:100]}_x{scale:g}.png"
    lost = write_picture(download, replace(picture, pixels=pixels))
    view = Sizes(min(1.0, math.sqrt(VIEW_PIXELS / (height * width)))).of(height, width)
    before = place / "before.png"
    write_picture(before, Picture(resized(picture.pixels, view), picture.icc_profile, cicp=picture.cicp))
    if view != (height, width):
        after = place / "after.png"
        write_picture(after, Picture(resized(pixels, view), picture.icc_profile, cicp=picture.cicp))
    frames = f", the first of {picture.frames} pages" if picture.frames > 1 else ""
    reduced = f" Shown at {view[1]}x{view[0]}; the download is whole." if after != download else ""
    missing = f" The download lacks: {', '.join(lost)}." if lost else ""
    seconds = time.perf_counter() - start
    text = (
        f"{path.name}{frames}: {old_width}x{old_height} became {width}x{height} in {seconds:.1f} s.{reduced}{missing}"
    )
    return Result(before, after, download, text)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return pixels resized bicubically to (height, width), as the upscaler enlarges them before it restores."""
    source = PixelRows(pixels)
    colors = color_count(pixels)
    color = Resized(source.color, source.size, size)
    alpha = Resized(source.alpha, source.size, size)
    result = np.empty((*size, pixels.shape[2]), pixels.dtype)
    for top in range(0, size[0], _ROWS):
        rows = slice(top, min(top + _ROWS, size[0]))
        result[rows, :, :colors] = to_pixels(color.rows(rows.start, rows.stop)[:colors], pixels.dtype)
        if has_alpha(pixels):
            result[rows, :, colors:] = to_pixels(alpha.rows(rows.start, rows.stop), pixels.dtype)
    return result


def license_line(model: str, upscaler: Upscaler) -> str:
    """Return one line of HTML that names the model and its license."""
    license = license_of(upscaler.record.base)
    terms = "commercial use allowed" if license.commercial else "not for commercial use"
    name = html.escape(Path(model).name if Path(model).exists() else model)
    linked = f'<a href="{license.link}" rel="noreferrer">{license.name}</a>' if license.link else license.name
    return f"<p>Model: {name} · License: {linked}, {terms}</p>"


def make_page(upscaler: Upscaler, model: str, folder: Path, max_pixels: int) -> gr.Blocks:
    """Return the page, not launched yet; ``folder`` is Gradio's cache, and it serves files from there alone."""

    def run(
        upload: str | None,
        scale: float,
        steps: int,
        strength: float,
        progress: Any = gr.Progress(),  # noqa: B008  # Gradio's way
    ) -> tuple[Any, Any, str]:
        def report(done: int, total: int) -> None:
            progress((done, total), unit="tiles")

        progress(None, desc="Reading")
        try:
            result = upscale_upload(upscaler, upload, scale, steps, folder, max_pixels, report, strength)
        except Exception as error:  # whatever a file or a device comes up with, the page lives on and says so
            if not isinstance(error, ValueError):
                logger.exception("can't upscale %s", upload)
            said = message(str(error) or type(error).__name__, "problem")
            return None, gr.DownloadButton(value=None, visible=False), said
        download = gr.DownloadButton(value=str(result.download), visible=True)
        return (str(result.before), str(result.after)), download, message(result.text, "done")

    with gr.Blocks(title="fluxsr", analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        gr.HTML(
            "<h1>Upscale a photo</h1><p>fluxsr enlarges and restores it on this computer; "
            "photos and results are deleted after an hour.</p>",
            elem_id="title",
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(label="Photo", file_types=[*FORMATS], height=170, elem_id="photo")
                scale = gr.Slider(1, LARGEST_SCALE, upscaler.scale, step=0.1, label="Scale", elem_id="scale")
                steps = gr.Slider(1, MOST_STEPS, 1, step=1, label="Steps", info="The models are trained for one.")
                strength = gr.Slider(
                    0, 2, 1, step=0.05, label="Strength", info="0 leaves the photo, 1 is usual.", elem_id="strength"
                )
                start = gr.Button("Upscale", variant="primary", elem_id="start")
            with gr.Column(scale=2, min_width=300):
                slider = gr.ImageSlider(
                    label="Bicubic | fluxsr",
                    interactive=False,
                    buttons=["fullscreen"],
                    max_height=640,
                    elem_id="result",
                )
                text = gr.HTML(elem_id="message")
                download = gr.DownloadButton("Download PNG", visible=False, elem_id="download")
        gr.HTML(license_line(model, upscaler), elem_id="license")
        start.click(
            lambda: (gr.DownloadButton(visible=False), ""),
            None,
            [download, text],
            show_progress="hidden",
            queue=False,
            api_visibility="private",
        ).then(
            run,
            [upload, scale, steps, strength],
            [slider, download, text],
            show_progress_on=slider,
            concurrency_limit=1,
            api_visibility="private",
        )
    return page.queue(max_size=20)


def message(text: str, kind: str) -> str:
    """Return a message to the user as HTML."""
    role = "alert" if kind == "problem" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'
