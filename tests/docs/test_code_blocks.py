"""The Python on the pages runs as it stands there; what is included from examples/ is run by their own tests."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from fluxsr import flows, losses
from tests.docs.pages import SNIPPET, blocks

# Words of blocks that need a download, or a model that nobody has here.
DOWNLOADS = ("black-forest-labs/", 'net="vgg"', 'from_pretrained("student")')
PYTHON = [block for block in blocks("python") if not SNIPPET.search(block.text)]


def name(block) -> str:
    return f"{block.page}-{block.number}"


def runs(block) -> bool:
    return not any(word in block.text for word in DOWNLOADS)


def surroundings() -> dict:
    """What a reader has at hand where a page says `sr_image`, `hr_latents` or `velocity`."""
    draw = torch.Generator().manual_seed(0)
    hr_image, sr_image = torch.rand(2, 1, 3, 32, 32, generator=draw)
    hr_latents, lr_latents, noise = torch.randn(3, 1, 12, 16, 16, generator=draw)
    return {
        "hr_image": hr_image,
        "sr_image": sr_image.requires_grad_(),
        "hr_latents": hr_latents,
        "lr_latents": lr_latents,
        "noise": noise,
        "velocity": lambda xt, t: torch.zeros_like(xt),
        "image": Image.new("RGB", (20, 16), "teal"),
    }


@pytest.mark.parametrize("block", [block for block in PYTHON if runs(block)], ids=name)
def test_the_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 16), "teal").save("photo.jpg")
    if block.page == "CONTRIBUTING.md":  # where the text says that the name goes into the package
        for earlier in [b for b in PYTHON if b.page == block.page and b.number < block.number]:
            defined: dict = {}
            exec(earlier.text, defined)
            for package, new in ((losses, "GradientLoss"), (flows, "DirectRestoration")):
                if new in defined and not hasattr(package, new):
                    monkeypatch.setattr(package, new, defined[new], raising=False)
    namespace = surroundings()
    text = block.text.replace("(2160, 3840)", "(54, 96)")  # the same, in less than a minute
    exec(compile(text, name(block), "exec"), namespace)
    for key, value in list(namespace.items()):
        if key.startswith("test_"):
            value()


def test_most_blocks_are_run():
    assert sum(map(runs, PYTHON)) >= 10
    assert len(PYTHON) - sum(map(runs, PYTHON)) <= 5


def test_every_block_is_python():
    for block in PYTHON:
        compile(block.text, name(block), "exec")
