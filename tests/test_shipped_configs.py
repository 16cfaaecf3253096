"""Configurations that come with the package are found by name, from any folder, and copied."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fluxsr.cli._support.fit_files import read_config
from fluxsr.cli.main import main
from fluxsr.shipped_configs import config_path, headline, shipped_configs
from tests.conftest import ROOT

HOME = ROOT / "examples" / "configs"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_file_of_the_home_has_a_name_and_a_headline():
    found = shipped_configs()
    assert set(found.values()) == set(HOME.rglob("*.yaml"))
    assert {"fluxsr_nano", "fluxsr_flux1dev", "memory/48gb"} <= set(found)
    assert all(20 < len(headline(path)) < 140 and ". " not in headline(path)[:-4] for path in found.values())


def test_a_bare_name_is_the_shipped_file():
    assert read_config("memory/48gb") == yaml.safe_load((HOME / "memory" / "48gb.yaml").read_text())


def test_a_file_of_ones_own_goes_first():
    Path("fluxsr_nano").write_text("trainer: {max_steps: 7}")
    assert config_path("fluxsr_nano") == Path("fluxsr_nano")
    assert read_config("fluxsr_nano") == {"trainer": {"max_steps": 7}}


def test_a_folder_of_that_name_is_no_configuration():
    Path("fluxsr_nano").mkdir()
    assert config_path("fluxsr_nano") == HOME / "fluxsr_nano.yaml"


@pytest.mark.parametrize("typed", ["fluxsr_nanoo", "fluxsr_nano.yaml"])
def test_a_mistyped_name_suggests_the_shipped_one(typed):
    with pytest.raises(ValueError, match=r"fluxsr_nano\?"):
        read_config(typed)


def test_the_command_lists_all_with_a_line_each(capsys):
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_configs())


def test_the_command_copies_one_and_replaces_nothing(capsys):
    main(["configs", "fluxsr_nano", "-o", "mine.yaml"])
    assert Path("mine.yaml").read_bytes() == (HOME / "fluxsr_nano.yaml").read_bytes()
    Path("mine.yaml").write_text("kept")
    with pytest.raises(SystemExit) as stopped:
        main(["configs", "student_nano", "-o", "mine.yaml"])
    assert stopped.value.code == 2
    assert Path("mine.yaml").read_text() == "kept"


@pytest.mark.parametrize("words", [["configs", "fluxsr_nan"], ["configs", "-o", "a.yaml"], ["configs", "a", "b"]])
def test_a_mistake_is_one_line(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_grid_is_found_by_name(tmp_path):
    from fluxsr.evaluation.ablation import read_grid

    variants = read_grid("ablation_nano", str(tmp_path), "photos")
    assert len(variants) > 3
