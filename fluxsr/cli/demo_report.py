"""The demo's report: one HTML file with everything inside."""

from __future__ import annotations

import base64
import html
import io
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluxsr.atomic import write_text

if TYPE_CHECKING:
    from fluxsr.cli.demo import DemoResult

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:first-child, th:first-child { text-align: left; } tr:last-child td { font-weight: 600; }
.stages td:last-child, .stages th:last-child { text-align: left; }
.row { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); margin-bottom: 1rem; }
figure { margin: 0; } figure img { width: 100%; image-rendering: auto; display: block; border-radius: 4px; }
figure.lr img { image-rendering: pixelated; } figcaption { font-size: .85rem; opacity: .8; }
.toy { background: var(--soft); padding: .8rem 1.2rem; border-radius: 6px; }
.scroll { overflow-x: auto; } .curves { width: 100%; min-width: 52rem; background: #fff; border-radius: 6px; }
"""

TOY = """
<p><b>What is a toy here.</b> The teacher is the shipped nano model: FLUX's blocks, but 2.5 M parameters instead of 12 B, in
pixel space, without text. It draws textures, not scenes, so its pairs teach the <i>demo LoRA</i> little about photos: a few
hundred steps on 128x128 images show that the machinery runs, every term with a gradient, and nothing more. The <i>shipped
student</i> was distilled from the same teacher by the same code for longer, on photos; it too is small. The degradation, the
losses, the objective and the one-step restoration are the real ones. The photos were never trained on.</p>
"""


def write_report(path: Path, result: DemoResult) -> Path:
    """Write the report; returns its path."""
    from fluxsr.cli.demo import mean_scores

    systems = list(next(iter(result.scores.values())))
    head = "".join(f"<th>{html.escape(system)}<br>PSNR-Y &middot; LPIPS</th>" for system in systems)
    rows = "".join(
        f"<tr><td>{html.escape(photo)}</td>"
        + "".join(f"<td>{score['PSNR-Y']:.2f} dB &middot; {score['LPIPS']:.3f}</td>" for score in scores.values())
        + "</tr>"
        for photo, scores in {**result.scores, "mean": mean_scores(result)}.items()
    )
    pictures = "".join(
        f"<h3>{html.escape(photo)}</h3><div class=row>" + "".join(figure(*item) for item in images.items()) + "</div>"
        for photo, images in result.images.items()
    )
    total = sum(stage.seconds for stage in result.stages)
    stages = "".join(
        f"<tr><td>{html.escape(stage.name)}</td><td>{stage.seconds:.1f} s</td><td>{html.escape(stage.note)}</td></tr>"
        for stage in result.stages
    )
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    text = f"""<!doctype html><html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1"><title>fluxsr demo</title><style>{STYLE}</style></head><body>
<h1>fluxsr demo: one-step super-resolution by flow distillation</h1>
<div class=toy>{TOY}</div>
<h2>Held-out photos, x4, one step</h2>
<p>Degraded by Real-ESRGAN's second-order pipeline with fixed seeds. PSNR-Y: higher is closer to the photo.
{html.escape(result.lpips_name)}: lower looks closer to it.</p>
<div class=scroll><table><tr><th>photo</th>{head}</tr>{rows}</table></div>{pictures}
<h2>Training curves of the demo LoRA</h2><div class=scroll>{curves(result.curves)}</div>
<h2>Time</h2><div class=scroll><table class=stages><tr><th>stage</th><th>time</th><th>note</th></tr>{stages}
<tr><td>total</td><td>{total:.1f} s</td><td></td></tr></table></div><p>{html.escape(machine)}</p></body></html>"""
    write_text(path, text)
    return path


def figure(caption: str, image: Tensor) -> str:
    """Return an HTML figure of one image."""
    kind = " class=lr" if caption == "LR" else ""
    return (
        f"<figure{kind}><img alt='{caption}' src='{data_uri(png(image))}'><figcaption>{caption}</figcaption></figure>"
    )


def png(image: Tensor) -> bytes:
    """Return ``(3, H, W)`` in ``[0, 1]`` as a PNG file's bytes."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def curves(values: dict[str, list[tuple[int, float]]]) -> str:
    """Return the loss curves as one embedded SVG picture, a panel per term."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = [name for name in ("loss", *sorted(values)) if name in values]
    names = list(dict.fromkeys(names))
    panels, axes = pyplot.subplots(1, len(names), figsize=(3 * len(names), 2.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        steps, numbers = zip(*values[name], strict=True)
        axis.plot(steps, numbers, alpha=0.3, color="C0")
        axis.plot(steps, running_mean(numbers), color="C0")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
    panels.tight_layout()
    buffer = io.BytesIO()
    panels.savefig(buffer, format="svg")
    pyplot.close(panels)
    return f"<img class=curves alt='training curves' src='{data_uri(buffer.getvalue(), 'image/svg+xml')}'>"


def running_mean(numbers: tuple[float, ...], width: int = 15) -> list[float]:
    """Return the mean of the last ``width`` values at each place."""
    return [sum(part) / len(part) for part in (numbers[max(0, i - width + 1) : i + 1] for i in range(len(numbers)))]
