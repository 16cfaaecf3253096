import argparse

import pytest

from fluxsr.cli.run import argument_parser
from fluxsr.cli._support.messages import options_of, other_spelling, suggestion

KNOWN = {"--batch_size", "--trainer.max_steps", "--config", "--model.losses.tv_lpips.init_args.weight", "--max-pixels"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--batchsize", "--batch_size"),
        ("--batch", "--batch_size"),
        ("--trainer.max_stepz=3", "--trainer.max_steps"),
        ("--confg", "--config"),
        ("--model.losses.tv_lpip.init_args.weight=2", "--model.losses.tv_lpips.init_args.weight"),
    ],
)
def test_the_nearest_option_is_named(typed, meant):
    message = f"unrecognized arguments: {typed}"
    assert suggestion(message, ["fit", typed], KNOWN) == f"there is no {typed.split('=')[0]}; did you mean {meant}?"


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("unrecognized arguments: --quite-another", ["--quite-another"]),
        ("unrecognized arguments: photo.jpg", ["photo.jpg"]),
        (
            "unrecognized arguments: --quite-another",
            ["--batchsize", "--quite-another"],
        ),  # that one was not complained about
        ("lr_time must lie in (0, 1), got 2", ["--batchsize"]),
        ("the following arguments are required", []),
    ],
)
def test_nothing_is_said_where_nothing_is_near(message, typed):
    assert suggestion(message, typed, KNOWN) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--batch-size", "--batch_size"),
        ("--batch-size=3", "--batch_size=3"),
        ("--trainer.max-steps=a-b", "--trainer.max_steps=a-b"),
        ("--max_pixels", "--max-pixels"),
        ("--batch_size", "--batch_size"),
        ("--not-known", "--not-known"),
        ("-5", "-5"),
        ("my-file_name", "my-file_name"),
    ],
)
def test_dashes_and_underscores_are_one(typed, meant):
    assert other_spelling(typed, KNOWN) == meant


def test_the_options_of_subcommands_are_known_too():
    parser = argparse.ArgumentParser()
    parser.add_argument("--one")
    parser.add_subparsers().add_parser("fit").add_argument("--two")
    assert {"--one", "--two"} <= set(options_of(parser))


@pytest.fixture
def own() -> argparse.ArgumentParser:
    parser = argument_parser("thing", "What it does.", "[options]", "fluxsr thing --strength 3")
    parser.add_argument("--strength")
    parser.add_argument("--start-time")
    return parser


def test_a_command_ends_with_it(own, capsys):
    with pytest.raises(SystemExit) as stopped:
        own.parse_args(["--strenght", "3"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "fluxsr: error: there is no --strenght; did you mean --strength? (`fluxsr thing --help` lists the options)\n"
    )


def test_abbreviations_are_refused_and_the_other_spelling_is_taken(own, capsys):
    assert own.parse_args(["--start_time", "3"]).start_time == "3"
    with pytest.raises(SystemExit):
        own.parse_args(["--stre", "3"])
    assert "did you mean --strength?" in capsys.readouterr().err
