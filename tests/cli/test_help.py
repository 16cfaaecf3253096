"""The help of every command: one order, no line too long, every option with what it does."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from fluxsr.cli.main import COMMANDS, main
from tests.cli.conftest import fresh_process_modules


def help_of(command: str, capsys) -> str:
    """What `fluxsr COMMAND --help` prints."""
    capsys.readouterr()
    with suppress(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_reads_in_one_order(command, capsys):
    text = help_of(command, capsys)
    lines = text.splitlines()
    assert lines[0].endswith((".", ":")) or len(lines[0]) > 60  # what it does comes first
    usage = next(i for i, line in enumerate(lines) if line.startswith(f"usage: fluxsr {command}"))
    examples = lines.index("examples:")
    options = next(i for i, line in enumerate(lines) if line.startswith("options"))
    assert 0 < usage < examples < options
    assert lines[examples + 1].startswith(f"  fluxsr {command}")
    assert len(lines) <= 75, "one page"
    assert max(map(len, lines)) <= 128
    assert text.count("show this page and stop") == 1


@pytest.mark.parametrize("command", [name for name, (module, _) in COMMANDS.items() if module != "fluxsr.cli.fit"])
def test_every_option_says_what_it_is(command, capsys):
    text = help_of(command, capsys)
    entries = re.split(r"\n  (?=-)", text.split("\noptions:\n")[1].split("\n\n")[0])
    for entry in entries:
        said = re.sub(r"^\s*-[^ ]*(, --[\w-]+)?( [^ ]+)?( \.\.\.)?\s+", "", entry)
        assert re.search(r"[a-z]{3}", re.sub(r"\(default: .*\)", "", said)), entry


def test_the_help_of_training_loads_no_library():
    loaded = fresh_process_modules("from fluxsr.cli.main import main\nmain(['fit', '--help'])")
    assert not loaded & {"torch", "lightning", "jsonargparse", "rich"}


def test_all_keys_are_behind_an_option_of_its_own(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help_all"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--trainer.gradient_clip_val" in text
    assert len(text.splitlines()) > 500
