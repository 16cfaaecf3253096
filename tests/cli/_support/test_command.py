"""A command's options come from the signature of a function."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import pytest

from fluxsr.cli._support import model_options
from fluxsr.cli._support.command import Command
from fluxsr.cli._support.signatures import commas, read_signature, width_and_height
from fluxsr.cli.main import COMMANDS

Kind = Literal["soft", "hard"]


def work(
    inputs: Sequence[str],
    output: str,
    strength: float = 0.5,
    batch_size: int | None = None,
    kind: Kind = "soft",
    steps: Sequence[int] = (1,),
    trim: bool = True,
    overwrite: bool = False,
    names: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    tile: int | Literal["auto"] | None = "auto",
    watch: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Do the work.

    Args:
        inputs: Files to read, such as ``a.png``.
        output: File to write.
        strength: How strong.
        batch_size: How many at a time,
            on two lines.
        kind: Which kind.
        steps: How many steps.
        trim: Trim it.
        overwrite: Replace what is there.
        names: Names.
        size: A size.
        tile: A number of pixels; off: all.
        watch: No option.

    Raises:
        ValueError: never.
    """
    return {name: value for name, value in locals().items() if name != "watch"}


COMMAND = Command(
    "work",
    ("tests.cli._support.test_command:work",),
    "fluxsr work in -o out",
    positional="inputs",
    values={"names": commas, "size": width_and_height},
    exclusive=("strength", "kind"),
)
GIVEN = ["in", "-o", "out"]


@pytest.fixture(autouse=True)
def signature_of_this_file(monkeypatch):
    """Signatures are read below the package; here below the tests."""
    import ast
    from pathlib import Path

    monkeypatch.setattr(
        "fluxsr.cli._support.signatures._parse", lambda module: ast.parse(Path(__file__).read_text("utf-8"))
    )


def parse(*arguments: str) -> dict[str, Any]:
    return COMMAND.parse([*GIVEN, *arguments])


def test_defaults_are_those_of_the_function():
    assert parse() == work(["in"], "out")


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--strength", "2"], "strength", 2.0),
        (["--strength=-1e-3"], "strength", -1e-3),
        (["--strength", "-1"], "strength", -1.0),
        (["--batch_size", "3"], "batch_size", 3),
        (["--batch-size=3"], "batch_size", 3),
        (["--batch_size", "null"], "batch_size", None),
        (["--batch_size", "2e3"], "batch_size", 2000),
        (["--kind", "hard"], "kind", "hard"),
        (["--tile", "auto"], "tile", "auto"),
        (["--tile", "64"], "tile", 64),
        (["--tile", "off"], "tile", None),
        (["--size", "30x20"], "size", (20, 30)),
        (["--names", "a, b"], "names", ["a", "b"]),
        (["--steps", "1", "2"], "steps", [1, 2]),
        (["--steps", "1", "--steps=2"], "steps", [1, 2]),
        (["--no-trim"], "trim", False),
        (["--no_trim"], "trim", False),
        (["--trim=false"], "trim", False),
        (["--trim"], "trim", True),
        (["--overwrite"], "overwrite", True),
        (["--overwrite=true"], "overwrite", True),
        (["--no-overwrite"], "overwrite", False),
        (["more", "--", "--odd"], "inputs", ["in", "more", "--odd"]),
    ],
)
def test_values(arguments, name, value):
    assert parse(*arguments)[name] == value
    assert COMMAND.run([*GIVEN, *arguments]) == {**work(["in"], "out"), name: value}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--strenght", "3"], ["--strenght", "--strength"]),
        (["--stre", "3"], ["--stre", "--strength"]),
        (["--batch-sizes", "3"], ["--batch-sizes", "--batch_size"]),
        (["--xyz"], ["--xyz"]),
        (["--watch", "3"], ["--watch"]),
        (["--inputs", "3"], ["--inputs"]),
        (["-x"], ["-x"]),
        (["--strength", "much"], ["--strength", "'much'"]),
        (["--strength"], ["--strength"]),
        (["--steps", "1", "2.5"], ["--steps", "'2.5'"]),
        (["--kind", "hadr"], ["--kind", "'hadr'", "hard"]),
        (["--trim=maybe"], ["--trim", "'maybe'"]),
        (["--size", "30"], ["--size", "'30'"]),
        (["--names", ","], ["--names"]),
        (["--strength", "1", "--kind", "hard"], ["--strength", "--kind"]),
    ],
)
def test_mistakes_name_the_option_the_value_and_what_was_meant(arguments, named):
    with pytest.raises(ValueError, match="fluxsr work --help") as raised:
        parse(*arguments)
    assert all(word in str(raised.value) for word in named)
    assert "\n" not in str(raised.value)


def test_what_is_required_is_named():
    with pytest.raises(ValueError, match=r"INPUTS.*--output"):
        COMMAND.parse([])


def test_what_is_another_commands_is_left():
    options, left = COMMAND.parse_known(["--config", "a.yaml", "--data.crop", "-1", "--kind=hard", "--print_config"])
    assert options == {"kind": "hard"}
    assert left == ["--config", "a.yaml", "--data.crop", "-1", "--print_config"]


def test_the_help_has_every_option_and_the_functions_words():
    text = COMMAND.help()
    assert text.startswith("Do the work.\n\nusage: fluxsr work INPUTS ... --output OUTPUT [options]")
    for words in ("-o, --output OUTPUT", "How many at a time, on two lines", "soft|hard", "--trim, --no-trim",
                  "such as a.png", "(default: 0.5)"):  # fmt: skip
        assert words in text
    assert "watch" not in text and "never" not in text


@pytest.mark.parametrize("name", [name for name, (module, _) in COMMANDS.items() if module != "fluxsr.cli.fit"])
def test_output_has_a_short_form_in_every_command_that_writes(name, monkeypatch):
    monkeypatch.undo()  # signatures of the package again
    module = import_module(COMMANDS[name][0])
    command = module.PAGE if name == "study" else module.COMMAND
    assert ("-o, --output" in command.help()) == ("output" in command.parameters) == (name not in ("app", "plan"))


# What says which model it is; the others say how it runs.
MODEL = set(read_signature(model_options.MODEL)[1]) - {"say", "tile", "color_fix", "grid_fix", "ensemble"}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("upscale", set()),
        ("app", set()),
        ("evaluate", {"model"}),  # which may be several there
        ("export", {"device", "memory", "dtype"}),  # it runs nothing, and keeps a checkpoint's dtype
    ],
)
def test_every_command_with_a_model_takes_the_same_options_for_it(name, other, monkeypatch):
    monkeypatch.undo()
    options = import_module(COMMANDS[name][0]).COMMAND.parameters
    known = read_signature(model_options.MODEL)[1]
    assert MODEL - {"device", "memory"} <= options.keys()
    for one in MODEL - other:
        assert options[one]._replace(help="", default=None) == known[one]._replace(help="", default=None)
