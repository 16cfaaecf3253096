import argparse

import pytest

from fluxsr.cli.run import argument_parser
from fluxsr.cli.suggest import suggestion


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch_size")
    inner = parser.add_subparsers().add_parser("fit")
    inner.add_argument("--trainer.max_steps")
    inner.add_argument("--config")
    return parser


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--batchsize", "--batch_size"), ("--trainer.max_stepz=3", "--trainer.max_steps"), ("--confg", "--config")],
)
def test_the_nearest_option_is_named(parser, typed, meant):
    assert suggestion(parser, ["fit", typed]) == f"there is no {typed.split('=')[0]}; did you mean {meant}?"


def test_keys_inside_a_configuration_are_known(parser, tmp_path):
    (tmp_path / "a.yaml").write_text("model:\n  losses:\n    tv_lpips:\n      init_args: {weight: 1.0}\n")
    for config in (["--config", str(tmp_path / "a.yaml")], [f"--config={tmp_path / 'a.yaml'}"]):
        assert suggestion(parser, [*config, "--model.losses.tv_lpips.init_args.weight=2"]) is None
        assert "did you mean --model.losses.tv_lpips.init_args.weight?" in suggestion(
            parser, [*config, "--model.losses.tv_lpip.init_args.weight=2"]
        )


@pytest.mark.parametrize(
    "typed", [[], ["--batch_size", "3"], ["--trainer.max_ste", "3"], ["--quite-another"], ["photo.jpg"]]
)
def test_nothing_is_said_where_nothing_is_near(parser, typed):
    assert suggestion(parser, typed) is None


def test_a_damaged_configuration_is_left_to_the_parser(parser, tmp_path):
    (tmp_path / "a.yaml").write_text("a: [")
    assert suggestion(parser, ["--config", str(tmp_path / "a.yaml")]) is None


def test_a_command_ends_with_it(capsys, monkeypatch):
    own = argument_parser("thing", "What it does.")
    own.add_argument("--strength")
    monkeypatch.setattr("sys.argv", ["fluxsr", "--strenght", "3"])
    with pytest.raises(SystemExit) as stopped:
        own.parse_args(["--strenght", "3"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "fluxsr: error: there is no --strenght; did you mean --strength? (`fluxsr thing --help` lists the options)\n"
    )
