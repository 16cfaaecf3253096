"""Modules and data of the user's own in `fluxsr fit`: a subclass, named in a second file, and a module of another kind."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from fluxsr.cli._support.fit_cli import SavedConfig
from fluxsr.cli.main import main
from fluxsr.data import SRDataModule
from fluxsr.training import OneStepSR
from tests.cli.test_fit import CONFIGS, QUIET, command, failure

SUBCLASS = """\
from fluxsr.data import SRDataModule
from fluxsr.training import OneStepSR

class Sharper(OneStepSR):
    def __init__(self, *args, sharpness: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if sharpness < 0:
            raise ValueError(f"sharpness must not be negative, got {sharpness}")
        self.sharpness = sharpness

class Photos(SRDataModule):
    pass
"""
OTHER = """\
import torch
from lightning import LightningDataModule, LightningModule

class Line(LightningModule):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.slope, self.lr = torch.nn.Parameter(torch.zeros(())), lr
    def training_step(self, batch, batch_idx):
        return (self.slope * batch - 3 * batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

class One(LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(1))

class Pairs(One):
    def __init__(self, pairs: int = 4) -> None:
        super().__init__()
        self.pairs = pairs

class Numbers(LightningDataModule):
    def __init__(self, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.count = count
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(self.count), batch_size=1)
"""
LINE = "model: {class_path: a_line.Line, init_args: {lr: 0.5}}\ndata: {class_path: a_line.Numbers}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder, with two modules of their own; it is not on Python's path."""
    (tmp_path / "my_sr.py").write_text(SUBCLASS)
    (tmp_path / "a_line.py").write_text(OTHER)
    (tmp_path / "mine.yaml").write_text("model: {class_path: my_sr.Sharper, init_args: {sharpness: 3}}\n")
    (tmp_path / "line.yaml").write_text(LINE)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    for name in ("my_sr", "a_line"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def fit(folder: Path, *arguments: str):
    return command(folder, "fit", *arguments, *QUIET, "--trainer.max_steps=1", "--trainer.logger=false")


def test_a_second_file_names_a_subclass_and_the_first_ones_keys_are_its_arguments(folder, photos, capsys):
    nano = str(CONFIGS / "fluxsr_nano.yaml")
    cli = fit(
        folder, "--config", nano, "--config=mine.yaml", "--data.pairs=null", f"--data.photos={photos}",
        "--data.batch_size=1", "--model.losses.adl=null", "--model.losses.mse.weight=2",
    )  # fmt: skip
    assert type(cli.model).__name__ == "Sharper"
    assert isinstance(cli.model, OneStepSR)
    assert cli.model.sharpness == 3
    assert {name: term.weight for name, term in cli.model.losses.items()} == {"mse": 2.0, "tv_lpips": 1.0}
    assert cli.trainer.global_step == 1
    assert "MSELoss" in capsys.readouterr().err  # what is minimized is said of a subclass too


def test_data_of_ones_own_still_get_their_pairs_made(folder, tmp_path):
    (folder / "mine.yaml").write_text("data: {class_path: my_sr.Photos}\n")
    pairs = "--make_pairs={model: nano, num: 2, steps: 1, size: 128}"
    cli = fit(
        folder, "--config", str(CONFIGS / "fluxsr_nano.yaml"), "--config=mine.yaml", "--data.pairs=made", pairs,
        "--data.batch_size=2", "--model.losses.tv_lpips=null",
    )  # fmt: skip
    assert type(cli.datamodule).__name__ == "Photos"
    assert isinstance(cli.datamodule, SRDataModule)
    assert (folder / "made").is_dir()


def test_any_module_trains_on_any_data(folder):
    cli = fit(folder, "--config=line.yaml", "--data.count=4", "--model.lr=0.25")
    torch.testing.assert_close(cli.model.slope.detach(), torch.tensor(1.5))  # 0.25 * 2 * (3 - 0)


@pytest.mark.parametrize("data", ["One", "Pairs"])
def test_data_without_arguments_and_with_pairs_of_another_kind(folder, data):
    cli = fit(folder, "--config=line.yaml", f"--data.class_path=a_line.{data}")
    assert type(cli.datamodule).__name__ == data
    assert cli.trainer.global_step == 1


def test_a_printed_configuration_takes_files_and_options_as_any_other(folder, photos, capsys):
    nano = ["--config", str(CONFIGS / "fluxsr_nano.yaml"), "--data.pairs=null", f"--data.photos={photos}"]
    with pytest.raises(SystemExit):
        command(folder, "fit", *nano, "--config=mine.yaml", "--print_config")
    (folder / "printed.yaml").write_text(capsys.readouterr().out)
    (folder / "later.yaml").write_text(
        "model: {flow_weight: 2, backbone: {init_args: {lora_rank: 5}}, losses: {mse: {init_args: {weight: 7}}}}\n"
    )
    cli = fit(
        folder, "--config=printed.yaml", "--config=later.yaml", "--data.batch_size=1", "--model.losses.adl", "null",
        "--model.losses.tv_lpips.weight=3",
    )  # fmt: skip
    assert type(cli.model).__name__ == "Sharper"
    assert cli.model.flow_weight == 2
    assert cli.config.fit.model.init_args.backbone.init_args.lora_rank == 5
    assert {name: term.weight for name, term in cli.model.losses.items()} == {"mse": 7.0, "tv_lpips": 3.0}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config=line.yaml"], ["count"]),
        (["--config=line.yaml", "--data.cuont=1"], ["'cuont'", "count?"]),
        (["--config=line.yaml", "--model.lr=fast", "--data.count=1"], ["model", "lr", "fast"]),
        (["--config=nano.yaml", "--config=wrong.yaml"], ["wrong.yaml: model", "flow_wieght", "flow_weight?"]),
        (["--config=line.yaml", "--model.class_path="], ["--model.class_path"]),
        (["--config=typo.yaml", "--data.count=1"], ["typo.yaml: model", "a_line", "Lien"]),
        (
            ["--config=line.yaml", "--data.count=0"],
            ["error: count must be at least 1, got 0"],
        ),  # in the class' own words
    ],
)
def test_mistakes_have_their_place(folder, capsys, arguments, named):
    (folder / "nano.yaml").write_text((CONFIGS / "fluxsr_nano.yaml").read_text())
    (folder / "wrong.yaml").write_text("model: {class_path: my_sr.Sharper, init_args: {flow_wieght: 2}}\n")
    (folder / "typo.yaml").write_text(LINE.replace("a_line.Line", "a_line.Lien"))
    error = failure(folder, capsys, "fit", *arguments, *QUIET)
    assert all(word in error for word in named), error


def test_only_our_module_is_planned_for(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit):
        main(["plan", "--config=line.yaml", "--data.count=1"])
    assert "this is for a OneStepSR alone, and a_line.Line is none" in capsys.readouterr().err


def test_a_subclass_is_planned_for_as_it_is(folder, monkeypatch, capsys, photos):
    monkeypatch.chdir(folder)
    plan = ["plan", "--config", str(CONFIGS / "fluxsr_nano.yaml"), "--data.pairs=null", f"--data.photos={photos}"]
    main(plan)
    plain = capsys.readouterr().out
    main([*plan, "--config=mine.yaml"])
    assert capsys.readouterr().out == plain
    with pytest.raises(SystemExit):
        main([*plan, "--config=mine.yaml", "--model.sharpness=-1"])
    assert capsys.readouterr().err == "fluxsr: error: sharpness must not be negative, got -1.0\n"


def test_a_logger_without_a_folder_leaves_the_configuration_in_the_root(tmp_path):
    parser = LightningArgumentParser()
    parser.add_argument("--steps", type=int, default=3)
    strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer = SimpleNamespace(
        log_dir=None, is_global_zero=True, default_root_dir=str(tmp_path / "root"), strategy=strategy
    )
    SavedConfig(parser, parser.parse_args(["--steps=7"])).setup(trainer, None, "fit")
    assert yaml.safe_load((tmp_path / "root" / "config.yaml").read_text()) == {"steps": 7}


def test_other_processes_write_nothing(tmp_path):
    parser = LightningArgumentParser()
    strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer = SimpleNamespace(log_dir=None, is_global_zero=False, default_root_dir=str(tmp_path), strategy=strategy)
    SavedConfig(parser, parser.parse_args([])).setup(trainer, None, "fit")
    assert not list(tmp_path.iterdir())
