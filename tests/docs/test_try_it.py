"""The ways to try it in one line: the notebook's cells run, the Space's files and the image's steps name what there is."""

from __future__ import annotations

import json
import re

import numpy as np
import yaml
from PIL import Image

from tests.conftest import ROOT

NOTEBOOK = json.loads((ROOT / "notebooks" / "try_fluxsr.ipynb").read_text())


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)).save("photo.png")
    cells = ["".join(one["source"]) for one in NOTEBOOK["cells"] if one["cell_type"] == "code"]
    assert len(cells) == 5 and cells[0].startswith("%pip install")
    assert not any(one.get("outputs") for one in NOTEBOOK["cells"])
    shown: list = []
    names: dict = {"display": shown.append}
    for cell in cells[1:]:
        exec(cell, names)
    assert shown[0].size == (2 * 96, 80)
    assert Image.open("large_nano.png").size == (96, 80)


def test_the_space_names_what_there_is():
    text = (ROOT / "space" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["sdk"] == "gradio" and (ROOT / "space" / header["app_file"]).is_file()
    wanted = re.search(r"gradio>=([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]
    assert header["sdk_version"].startswith(wanted)
    variables = set(re.findall(r"FLUXSR_[A-Z_]+", (ROOT / "space" / "app.py").read_text()))
    assert variables == set(re.findall(r"FLUXSR_[A-Z_]+", text))


def test_the_image_copies_what_there_is():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((ROOT / one).exists() for one in copied)
    assert {"pyproject.toml", "fluxsr", "examples/configs", "LICENSES"} <= set(copied)
