"""The shipped configurations, run through the command for two steps."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fluxsr.cli._support.fit_cli import FluxSRCLI, losses_of, without_noise
from fluxsr.cli.fit import main as lightning_main
from fluxsr.cli.main import main
from fluxsr.images import read_image
from fluxsr.training.pair_maker import make_pairs
from tests.cli.mistakes import failed

CONFIGS = Path(__file__).parent.parent.parent / "examples" / "configs"
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
NORMS = ["--model.log_gradient_norms=1"]
FEW_PAIRS = "--make_pairs={model: nano, num: 8, steps: 2, size: 128}"


def command(folder: Path, *arguments: str) -> FluxSRCLI:
    """Run a command in a folder of its own, with the process's state as it was afterwards."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        patch.setenv("PL_GLOBAL_SEED", "0")
        patch.setenv("PL_SEED_WORKERS", "0")
        return lightning_main(list(arguments))


def fit(folder: Path, config: str, *arguments: str, steps: int = 2) -> FluxSRCLI:
    """Run a shipped configuration for a few steps."""
    path = str(CONFIGS / config)
    return command(folder, "fit", "--config", path, f"--trainer.max_steps={steps}", *QUIET, *arguments)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """Eight pairs of the nano teacher."""
    return make_pairs(str(tmp_path_factory.mktemp("pairs") / "nano"), num=8, steps=2, size=128).folder


@pytest.fixture(scope="session")
def pipeline_pairs(pipeline) -> Path:
    """Four pairs of the tiny FLUX.1-dev."""
    prompt = str(pipeline / "prompt.safetensors")
    return make_pairs(
        str(pipeline / "pairs"), model=str(pipeline), prompt=prompt, guidance=3.5, num=4, steps=2, size=32
    ).folder


@pytest.fixture(scope="session")
def pipeline2_pairs(pipeline2) -> Path:
    """Four pairs of the tiny FLUX.2-klein-base, sampled with classifier-free guidance."""
    prompt = str(pipeline2 / "prompt.safetensors")
    return make_pairs(
        str(pipeline2 / "pairs"), model=str(pipeline2), prompt=prompt, cfg=4.0, num=4, steps=2, size=32
    ).folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory, photos, pairs, pipeline, pipeline_pairs, pipeline2, pipeline2_pairs):
    """Each shipped configuration after two steps, run once, when it is asked for."""
    backbone, small = "--model.backbone.init_args", "init_args.crop=16"
    arguments = {
        "nano, pairs made": ("fluxsr_nano.yaml", "--data.pairs=made", FEW_PAIRS),
        "nano, pairs and photos": ("fluxsr_nano.yaml", f"--data.pairs={pairs}", FEW_PAIRS, f"--data.photos={photos}"),
        # Two batches an epoch, so that the checkpoint lies between two epochs.
        "nano, photos": (
            "fluxsr_nano.yaml",
            "--data.pairs=null",
            f"--data.photos={photos}",
            "--data.samples_per_image=4",
        ),
        "teacher": ("teacher_nano.yaml", f"--data.photos={photos}", f"--data.val_photos={photos}"),
        "student": (
            "student_nano.yaml",
            "--model.losses.tv_lpips.init_args.loss.init_args.net=nano",
            f"--data.photos={photos}",
            "--data.batch_size=4",
        ),
        "flux1dev": (
            "fluxsr_flux1dev.yaml",
            f"{backbone}.model={pipeline}",
            f"{backbone}.prompt={pipeline}/prompt.safetensors",
            f"{backbone}.lora_rank=4",
            f"--model.autoencoder.init_args.source={pipeline}",
            f"--model.losses.mse.{small}",
            f"--model.losses.tv_lpips.{small}",
            "--model.losses.tv_lpips.init_args.loss.init_args.net=nano",
            f"--data.pairs={pipeline_pairs}",
            "--data.crop=32",
            "--data.num_workers=0",
        ),
        "klein4b": (
            "fluxsr_klein4b.yaml",
            f"{backbone}.model={pipeline2}",
            f"{backbone}.lora_rank=4",
            f"--model.autoencoder.init_args.source={pipeline2}",
            f"--model.losses.mse.{small}",
            f"--model.losses.tv_lpips.{small}",
            "--model.losses.tv_lpips.init_args.loss.init_args.net=nano",
            f"--data.pairs={pipeline2_pairs}",
            "--data.crop=32",
            "--data.num_workers=0",
        ),
    }
    done: dict[str, tuple[FluxSRCLI, Path]] = {}

    def run(name: str) -> tuple[FluxSRCLI, Path]:
        if name not in done:
            folder = tmp_path_factory.mktemp("run")
            config, *overrides = arguments[name]
            done[name] = fit(folder, config, *overrides, *NORMS), folder
        return done[name]

    return run


FLUXSR_TERMS = {"flow", "mse", "tv_lpips", "adl"}


@pytest.mark.parametrize(
    ("name", "terms", "trained"),
    [
        ("nano, pairs made", FLUXSR_TERMS, ".lora_"),
        ("nano, pairs and photos", FLUXSR_TERMS, ".lora_"),
        ("nano, photos", FLUXSR_TERMS, ".lora_"),
        pytest.param("teacher", {"flow"}, "", marks=pytest.mark.torch("2.9")),
        pytest.param("student", {"flow", "l1", "tv_lpips", "adl"}, "", marks=pytest.mark.torch("2.9")),
        ("flux1dev", FLUXSR_TERMS, ".lora_"),
        ("klein4b", FLUXSR_TERMS, ".lora_"),
    ],
)
def test_every_term_of_every_configuration_reaches_what_is_trained(runs, name, terms, trained):
    cli, folder = runs(name)
    assert cli.trainer.global_step == 2
    metrics = cli.trainer.callback_metrics
    norms = {key.rpartition("/")[2]: float(value) for key, value in metrics.items() if "grad_norm" in key}
    assert set(norms) == terms
    assert all(0 < norm < float("inf") for norm in norms.values()), norms
    assert terms | {"loss"} <= {key.removeprefix("train/") for key in metrics}
    # Only the backbone is trained: of it the adapters, or everything; autoencoder and perceptual nets are frozen.
    state = cli.model.trained.parameters()
    assert state
    assert all(key.startswith("backbone.") and trained in key for key in state)
    assert list(folder.rglob("backbone.safetensors"))


def test_pairs_of_another_teacher_are_refused(tmp_path, pairs):
    """A store that an older release left in the cache, say."""
    with pytest.raises(ValueError, match=r"steps is 2 there, 3 here.*--make_pairs null"):
        fit(tmp_path, "fluxsr_nano.yaml", f"--data.pairs={pairs}", FEW_PAIRS.replace("steps: 2", "steps: 3"))
    cli = fit(tmp_path, "fluxsr_nano.yaml", f"--data.pairs={pairs}", "--make_pairs=null", steps=1)
    assert cli.trainer.global_step == 1


def test_files_merge_by_key_options_win_and_the_terms_are_printed(tmp_path, pairs, capsys):
    (tmp_path / "more.yaml").write_text(
        "model: {losses: {mse: {init_args: {weight: 3, every: 2}}, tv_lpips: null}}\ntrainer: {max_steps: 7}\n"
    )
    cli = fit(
        tmp_path, "fluxsr_nano.yaml", "--config=more.yaml", "--make-pairs=null", f"--data.pairs={pairs}",
        "--model.losses.adl.weight", "0.5", steps=1,
    )  # fmt: skip
    assert cli.trainer.max_steps == 1  # the option, though the second file came later
    assert {name: term.weight for name, term in cli.model.losses.items()} == {"mse": 3.0, "adl": 0.5}
    assert losses_of(cli.model) == [
        ("flow", 1.0, "FlowTrajectoryDistillation"),
        ("mse", 3.0, "MSELoss, every 2 steps"),
        ("adl", 0.5, "AttentionDiversificationLoss"),
    ]
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["mse", "3", "MSELoss,", "every", "2", "steps"] in lines
    assert ["adl", "0.5", "AttentionDiversificationLoss"] in lines
    assert not any(line[:1] == ["tv_lpips"] for line in lines)
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    assert set(saved["model"]["losses"]) == {"mse", "adl"}


def test_a_run_that_goes_on_does_not_make_or_check_its_pairs_again(tmp_path, pairs, monkeypatch):
    arguments = [
        f"--data.pairs={pairs}",
        FEW_PAIRS,
        "--trainer.callbacks.init_args.every_n_train_steps=1",
        "--ckpt_path=last",
    ]
    assert fit(tmp_path, "fluxsr_nano.yaml", *arguments, steps=1).trainer.global_step == 1
    monkeypatch.setattr(
        "fluxsr.cli._support.fit_cli.complete_pairs", lambda *_: pytest.fail("the pairs were looked at again")
    )
    cli = fit(tmp_path, "fluxsr_nano.yaml", *arguments, steps=2)
    assert cli.trainer.global_step == 2
    assert "version_0" in cli.config.fit.ckpt_path  # of the run before; this one writes version_1


def test_last_needs_a_checkpoint_where_nothing_can_begin(tmp_path, capsys, photos):
    error = failure(
        tmp_path, capsys, "validate", "--config", CONFIGS / "fluxsr_nano.yaml", *QUIET, "--data.pairs=null",
        f"--data.val_photos={photos}", "--ckpt_path=last",
    )  # fmt: skip
    assert "there is no last.ckpt of this run in outputs/fluxsr_nano/checkpoints" in error
    assert "--ckpt_path FILE" in error


@pytest.mark.torch("2.9")
def test_an_override_of_an_interpolated_source_is_honored(runs, tmp_path, photos):
    cli = fit(tmp_path, "teacher_nano.yaml", f"--data.photos={photos}", steps=3)
    assert cli.trainer.lr_scheduler_configs[0].scheduler.total_steps == 3
    assert runs("teacher")[0].trainer.lr_scheduler_configs[0].scheduler.total_steps == 2


def checkpoint(folder: Path) -> str:
    """The newest checkpoint below a folder."""
    return str(max(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime))


def test_a_training_goes_on_from_its_checkpoint(runs, tmp_path, photos):
    _, folder = runs("nano, photos")
    arguments = ["--data.pairs=null", f"--data.photos={photos}", "--data.samples_per_image=4"]
    cli = fit(tmp_path, "fluxsr_nano.yaml", *arguments, f"--ckpt_path={checkpoint(folder)}", steps=4)
    assert cli.trainer.global_step == 4
    content = torch.load(checkpoint(tmp_path), weights_only=True)
    assert content["global_step"] == 4
    assert all(".lora_" in key for key in content["state_dict"] if key.startswith("backbone."))
    steps = {int(entry["step"]) for entry in content["optimizer_states"][0]["state"].values()}
    assert steps == {4}  # two of the first run, two of this one


def test_validate_measures_the_checkpoint(runs, tmp_path, photos):
    _, folder = runs("nano, photos")
    config = str(CONFIGS / "fluxsr_nano.yaml")
    cli = command(
        tmp_path, "validate", "--config", config, *QUIET, "--data.pairs=null", f"--data.val_photos={photos}",
        f"--ckpt_path={checkpoint(folder)}",
    )  # fmt: skip
    metrics = cli.trainer.callback_metrics
    assert {"val/psnr_y", "val/psnr_y_bicubic", "val/artefact_db", "val/artefact_db_hr"} <= set(metrics)
    assert all(value.isfinite() for value in metrics.values())
    assert list(tmp_path.rglob("previews/*.png"))


def test_predict_writes_upscaled_images(runs, tmp_path, photos):
    _, folder = runs("nano, photos")
    config = str(CONFIGS / "fluxsr_nano.yaml")
    cli = command(
        tmp_path, "predict", "--config", config, *QUIET, f"--data.predict={photos}",
        f"--ckpt_path={checkpoint(folder)}",
    )  # fmt: skip
    written = sorted((tmp_path / "outputs" / "fluxsr_nano" / "predict").iterdir())
    assert [path.name for path in written] == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.png"]
    image = read_image(written[0])
    assert image.shape == (3, 512, 512)
    # The average that the callback EMA kept is what upscales: its weights, put into the module, give the same picture.
    average = next(callback for callback in cli.trainer.callbacks if type(callback).__name__ == "EMA")
    with torch.inference_mode(), average.averaged(cli.model):
        expected = cli.model(read_image(photos / "astronaut.png")[None])[0]
    assert (image - expected).abs().max() <= 0.51 / 255


# ---- bad input -------------------------------------------------------------------------------------------------------


def failure(folder: Path, capsys, *arguments: Any) -> str:
    """What a command says that fails in a folder."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        return failed(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.losses.mse.init_args.loss.class_path=fluxsr.losses.NoSuchLoss"], "NoSuchLoss"),
        (["--model.objective.class_path=fluxsr.nowhere.Objective"], "nowhere"),
        (["--model.objective.init_args.lr_time=1.5", "--data.pairs=null"], "1.5"),
        (["--model.no_such_option=1"], "no_such_option"),
        (["--data.pairs=null"], "data.photos"),
        (["--data.pairs=null", "--data.photos=nowhere"], "nowhere"),
        (["--data.pairs=nowhere", "--make_pairs=null"], "fluxsr pairs"),
        (["--make_pairs={numm: 3}", "--data.pairs=new"], "numm"),
        (["--trainer.accelerator=abacus", "--data.pairs=null"], "abacus"),
        (["--ckpt_path=nowhere.ckpt", "--data.pairs=null", "--data.photos=PHOTOS"], "nowhere.ckpt"),
    ],
)
def test_bad_settings_end_in_one_clear_error(tmp_path, capsys, photos, arguments, named):
    arguments = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    error = failure(tmp_path, capsys, "fit", "--config", CONFIGS / "fluxsr_nano.yaml", *QUIET, *arguments)
    assert named in error


MISTAKES = [
    ("losses:", "losess:", "model.losess", "model.losses?"),
    ("lr_time:", "lr_tiem:", "model.objective.init_args.lr_tiem", "lr_time?"),
    ("weight_tv:", "weigth_tv:", "model.losses.tv_lpips.init_args.loss.init_args.weigth_tv", "weight_tv?"),
    ("decay: 0.99", "deacy: 0.99", "trainer.callbacks.0.init_args.deacy", "decay?"),
    ("weight_tv: 0.5", "weight_tv: abc", "model.losses.tv_lpips.init_args.loss.init_args.weight_tv", "abc"),
    ("crop: 128", "crop: abc", "data.crop", "abc"),
    ("training.FeatureTerm", "training.FeatureTrem", "model.losses", "FeatureTrem"),
    ("fluxsr.losses.MSELoss", "fluxsr.losses.MSELos", "model.losses.mse.init_args.loss", "'MSELos'"),
]


@pytest.mark.parametrize(("right", "wrong", "key", "named"), MISTAKES)
def test_a_mistake_in_a_file_names_it_its_key_and_what_was_meant(tmp_path, capsys, right, wrong, key, named):
    text = (CONFIGS / "fluxsr_nano.yaml").read_text()
    assert right in text
    (tmp_path / "mine.yaml").write_text(text.replace(right, wrong))
    error = failure(tmp_path, capsys, "fit", "--config", "mine.yaml")
    assert f"error: mine.yaml: {key}" in error or (right == "training.FeatureTerm" and key in error)
    assert named in error


OPTIONS = [
    ("--model.losses.tv_lpips.init_args.weight=abc", "weight", "abc"),
    ("--model.losses.tv_lpips.weight=abc", "weight", "abc"),
    ("--model.losses.tv_lpips.loss.wieght_tv=1", "wieght_tv", "weight_tv?"),
    ("--model.objective=fluxsr.flows.FlowMatchin", "model.objective", "'FlowMatchin'"),
    ("--trainer.max_st=2", "trainer.max_st", "max_steps?"),
    ("--trainer.callbacks.init_args.every_n_train_stepz=2", "every_n_train_stepz", "every_n_train_steps?"),
    ("--model.losses.tv_lpip.weight=2", "model.losses.tv_lpip", "tv_lpips?"),
    ("--ckpt_pth=last", "ckpt_pth", "ckpt_path?"),
    ("--data.cahce", "data.cahce", "cache?"),
    ("--data.crop", "data.crop", "true"),
    ("--data.crop=wide", "data.crop", "wide"),
    ("--config=", "--config", ""),
    ("--model.losses.mine=fluxsr.losses.L1Loss", "fluxsr.losses.L1Loss", "fluxsr.training.ImageTerm"),
]


@pytest.mark.parametrize(("option", "name", "named"), OPTIONS)
def test_a_mistake_in_an_option_has_its_name_and_what_was_meant(tmp_path, capsys, option, name, named):
    error = failure(tmp_path, capsys, "fit", "--config", CONFIGS / "fluxsr_nano.yaml", option)
    assert name in error and named in error and ".yaml" not in error


@pytest.mark.parametrize(
    ("given", "value"), [("--data.cache", True), ("--no-data.cache", False), ("--data.cache=true", True)]
)
def test_a_flag_is_spelled_as_in_other_commands(tmp_path, capsys, given, value):
    with pytest.raises(SystemExit):
        command(tmp_path, "fit", "--config", str(CONFIGS / "fluxsr_nano.yaml"), given, "--print_config")
    assert yaml.safe_load(capsys.readouterr().out)["data"]["cache"] is value


def test_without_a_configuration_it_says_so(tmp_path, capsys):
    assert "fluxsr fit --config FILE" in failure(tmp_path, capsys, "fit")
    (tmp_path / "half.yaml").write_text("trainer: {max_steps: 3}\n")
    error = failure(tmp_path, capsys, "fit", "--config", "half.yaml")
    assert all(key in error for key in ("model.backbone", "model.autoencoder", "model.objective"))


def test_a_checkpoint_of_another_model_is_refused(runs, tmp_path, photos, capsys):
    _, folder = runs("nano, photos")
    error = failure(
        tmp_path, capsys, "fit", "--config", CONFIGS / "fluxsr_nano.yaml", *QUIET, "--data.pairs=null",
        f"--data.photos={photos}", "--model.backbone.init_args.trainable=full", f"--ckpt_path={checkpoint(folder)}",
    )  # fmt: skip
    assert "the configuration that it was trained with" in error


class Listener(logging.Handler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


def test_what_is_not_listed_is_shown():
    with without_noise(), pytest.warns(UserWarning, match="of another kind"):
        warnings.warn("of another kind", stacklevel=1)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(listener := Listener())
    with without_noise():
        logger.critical("TPU available: False")
        logger.critical("GPU available: False")
    logger.critical("TPU available: True")
    logger.removeHandler(listener)
    assert listener.heard == ["GPU available: False", "TPU available: True"]


def test_a_training_starts_without_noise(tmp_path, photos):
    command = [sys.executable, "-m", "fluxsr", "fit", "--config", str(CONFIGS / "fluxsr_nano.yaml"), FEW_PAIRS]
    command += [f"--data.pairs={tmp_path / 'pairs'}", f"--data.photos={photos}", "--trainer.max_steps=1"]
    command += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    root = Path(__file__).parents[2]
    command += [f"--trainer.default_root_dir={tmp_path / 'out'}"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    lines = [line for line in result.stderr.splitlines() if "arning" in line or "lightning/" in line or "Tip" in line]
    assert not lines
    assert "eval mode" not in result.stderr


def test_the_script_that_was_started_can_be_started_again(tmp_path, capsys, monkeypatch):
    # Lightning starts the processes of the other devices with what stands first in sys.argv.
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/fluxsr", "fit", "--help_all"])
    with pytest.raises(SystemExit):
        main(["fit", "--help_all"])
    assert sys.argv[0] == "/somewhere/bin/fluxsr"
