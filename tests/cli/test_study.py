"""``fluxsr study`` as a user meets it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fluxsr.cli.main import main


@pytest.fixture
def folders(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(generator.integers(0, 255, (32, 40, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_page_and_its_key_are_written_and_votes_are_merged(folders, capsys):
    systems = [f"{name}={folders / name}" for name in ("ours", "theirs")]
    main(["study", *systems, "--output", str(folders / "study.html"), "--sanity", "0", "--seed", "1"])
    assert "study.html" in capsys.readouterr().out
    key = json.loads((folders / "study.key.json").read_text())
    codes = {name: code for code, name in key["systems"].items()}
    assert set(codes) == {"ours", "theirs"}
    page = (folders / "study.html").read_text()
    assert "ours" not in page and codes["ours"] in page


@pytest.mark.parametrize("wrong", [["ours"], ["a=/nope", "b=/nope"], ["a=x", "a=y"], []])
def test_a_mistake_is_one_line(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["study", *wrong, "--output", str(tmp_path / "study.html")])
    assert stopped.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
