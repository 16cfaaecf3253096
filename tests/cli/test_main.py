from __future__ import annotations

import sys
import types
from contextlib import suppress

import pytest

import fluxsr
from fluxsr.cli import main as module
from fluxsr.cli.main import COMMANDS, main
from tests.cli.conftest import fresh_process_modules
from tests.cli.mistakes import failed


@pytest.fixture
def command(monkeypatch):
    """Make `fluxsr probe` run a function."""

    def install(function) -> None:
        fake = types.ModuleType("probe_command")
        fake.main = function
        monkeypatch.setitem(sys.modules, "probe_command", fake)
        monkeypatch.setitem(COMMANDS, "probe", ("probe_command", "a probe"))

    return install


def raising(error: BaseException):
    """A command that fails."""

    def run(arguments: list[str]) -> None:
        raise error

    return run


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(arguments, capsys):
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(COMMANDS)
    assert {"demo", "fit", "validate", "test", "predict", "pairs", "prompt"} <= set(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["pars"]])
def test_the_dispatcher_loads_nothing_heavy(arguments):
    loaded = fresh_process_modules(
        f"from fluxsr.cli.main import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    )
    assert not loaded & {"torch", "numpy", "lightning", "diffusers", "jsonargparse", "rich", "fluxsr.cli.pairs"}


@pytest.mark.parametrize("arguments", [["--version"], ["upscale", "--version"], ["fit", "--config", "a", "--version"]])
def test_version(arguments, capsys):
    main(arguments)
    assert capsys.readouterr().out.strip() == fluxsr.__version__


@pytest.mark.parametrize("name", ["", "upscale", "fit"])
def test_help_of_a_command_is_its_page(name, capsys):
    with suppress(SystemExit):
        main(["help", name] if name else ["help"])
    said = capsys.readouterr().out
    with suppress(SystemExit):
        main([name, "--help"] if name else ["--help"])
    assert capsys.readouterr().out == said and f"usage: fluxsr {name}" in said


def test_the_arguments_are_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fluxsr", "--version"])
    main()
    assert capsys.readouterr().out.strip() == fluxsr.__version__


@pytest.mark.parametrize(
    ("typed", "named"), [("pars", ["pairs?"]), ("fits", ["fit?"]), ("validte", ["validate?"]), ("xyzzy", COMMANDS)]
)
def test_a_mistyped_command_is_suggested(typed, named, capsys):
    error = failed(capsys, typed)
    assert typed in error and all(one in error for one in named)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("size must be\n  a multiple of 4, got 63"),
        FileNotFoundError(2, "No such file", "photos"),
        PermissionError(13, "Permission denied", "photos"),
        NotADirectoryError(20, "Not a directory", "photos"),
        OSError(28, "No space left on device", "photos"),
    ],
)
def test_a_users_mistake_is_one_line(command, error, capsys):
    command(raising(error))
    with pytest.raises(SystemExit) as stopped:
        main(["probe", "--size", "63"])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err == f"fluxsr: error: {' '.join(str(error).split())}\n"
    assert captured.out == ""


def test_a_package_that_is_missing_is_named_and_a_module_of_ours_is_a_bug(command, capsys):
    command(raising(ModuleNotFoundError("No module named 'lightning.fabric'", name="lightning.fabric")))
    assert "lightning" in failed(capsys, "probe")
    command(raising(ModuleNotFoundError("No module named 'fluxsr.nowhere'", name="fluxsr.nowhere")))
    with pytest.raises(ModuleNotFoundError):
        main(["probe"])


def test_our_own_mistake_keeps_its_traceback(command):
    command(raising(AssertionError("a bug")))
    with pytest.raises(AssertionError, match="a bug"):
        main(["probe"])


def test_an_interruption_says_what_to_do(command, capsys):
    command(raising(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as stopped:
        main(["probe"])
    assert stopped.value.code == 130
    assert "the same command" in capsys.readouterr().err


def test_a_command_is_given_its_own_arguments(command):
    seen = []
    command(seen.append)
    main(["probe", "--num", "3"])
    assert seen == [["--num", "3"]]


def test_python_m_fluxsr_is_the_command():
    import fluxsr.__main__

    assert fluxsr.__main__.main is module.main
