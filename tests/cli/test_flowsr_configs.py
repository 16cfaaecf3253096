"""FlowSR's configurations, chained by their files as a user chains them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fluxsr.cli._support.fit_cli import FluxSRCLI
from tests.cli.test_fit import QUIET, checkpoint, command, failure, fit

# The configurations of nano train with MuonAdamW.
pytestmark = pytest.mark.torch("2.9")
FEW = ["--data.batch_size=4", "--trainer.val_check_interval=null"]
STUDENT = "--model.backbone.init_args"


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory, photos) -> Path:
    """The file that two steps of the nano preset's stage 1 leave."""
    folder = tmp_path_factory.mktemp("stage1")
    cli = fit(folder, "flowsr_stage1_nano.yaml", f"--data.photos={photos}", "--model.log_gradient_norms=1", *FEW)
    metrics = cli.trainer.callback_metrics
    assert metrics["train/grad_norm/flow"] > 0
    (file,) = folder.rglob("backbone.safetensors")
    return file


def tiny_arguments(pipeline, photos, prompt: bool) -> list[str]:
    """What makes the large models' configurations run on a tiny copy of the same format."""
    return [
        f"{STUDENT}.model={pipeline}",
        *([f"{STUDENT}.prompt={pipeline}/prompt.safetensors"] if prompt else []),
        f"--model.autoencoder.init_args.source={pipeline}",
        "--model.distance.init_args.net=nano",
        f"--data.photos={photos}",
        "--data.crop=32",
        "--data.num_workers=0",
        *FEW,
    ]


def named(cli: FluxSRCLI) -> set[str]:
    return {key.removeprefix("train/") for key in cli.trainer.callback_metrics if key.startswith("train/")}


@pytest.fixture(scope="module")
def stage_two(tmp_path_factory, stage_one, photos) -> tuple[FluxSRCLI, Path]:
    folder = tmp_path_factory.mktemp("stage2")
    # The learning rate's cycle is longer than this run, so that a resumed one can go on.
    overrides = [f"{STUDENT}.model={stage_one}", "--model.scheduler.init_args.total_steps=10"]
    return fit(folder, "flowsr_stage2_nano.yaml", *overrides, f"--data.photos={photos}", *FEW), folder


def test_stage_two_starts_from_stage_one_and_keeps_it_as_its_teacher(stage_one, stage_two):
    cli, _ = stage_two
    assert {"sr_flow", "consistency", "hr_regularisation", "flow", "loss"} <= named(cli)
    from safetensors.torch import load_file

    saved = load_file(stage_one)
    teacher = dict(cli.model.roles.models["teacher"].transformer.named_parameters())
    assert all(torch.equal(teacher[name], tensor.float()) for name, tensor in saved.items())
    student = dict(cli.model.backbone.transformer.named_parameters())
    assert any(not torch.equal(student[name], tensor.float()) for name, tensor in saved.items())


def test_stage_two_resumes(stage_one, stage_two, photos, tmp_path):
    _, folder = stage_two
    cli = fit(
        tmp_path, "flowsr_stage2_nano.yaml", f"{STUDENT}.model={stage_one}", f"--data.photos={photos}", *FEW,
        "--model.scheduler.init_args.total_steps=10", f"--ckpt_path={checkpoint(folder)}", steps=3,
    )  # fmt: skip
    assert cli.trainer.global_step == 3


@pytest.mark.parametrize(
    "ablation",
    [
        ["--model.objective.init_args.hr_weight=0"],
        ["--model.objective.init_args.schedule.init_args.slow_steps=4"],
        ["--model.objective.init_args.schedule.init_args.fast_steps=1000"],
        ["--model.distance=null"],
        ["--model.distance=fluxsr.losses.TVLPIPSLoss", "--model.distance.init_args.net=nano"],
        ["--model.adversary=fluxsr.training.Adversary", "--trainer.gradient_clip_val=null"],
    ],
    ids=["no HR", "fast only", "slow only", "latent distance", "TV-LPIPS distance", "adversary"],
)
def test_variants_are_one_override_away(stage_one, photos, tmp_path, ablation):
    cli = fit(
        tmp_path, "flowsr_stage2_nano.yaml", f"{STUDENT}.model={stage_one}", f"--data.photos={photos}", *FEW, *ablation,
        steps=1,
    )  # fmt: skip
    assert cli.trainer.global_step == 1
    assert ("hr_regularisation" in named(cli)) == (ablation[0] != "--model.objective.init_args.hr_weight=0")


def test_the_mixture_runs(stage_one, photos, tmp_path):
    cli = fit(
        tmp_path, "mixture_nano.yaml", f"--model.teacher.init_args.model={stage_one}", f"--data.photos={photos}", *FEW,
        "--model.adversary.init_args.warmup_steps=1",
    )  # fmt: skip
    assert cli.trainer.global_step == 2
    wanted = {"flow", "consistency", "hr_regularisation", "tv_lpips", "adl", "adversarial", "discriminator", "r1"}
    assert wanted <= named(cli)


@pytest.mark.parametrize("suffix", ["", "_klein4b"])
def test_flux_keeps_three_adapters_on_one_base(suffix, pipeline, pipeline2, photos, tmp_path):
    """Stage 1 and then stage 2, on FLUX.1-dev and on FLUX.2-klein."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    arguments = tiny_arguments(pipeline2 if suffix else pipeline, photos, prompt=not suffix)
    fit(tmp_path / "one", f"flowsr_stage1{suffix}.yaml", *arguments, f"{STUDENT}.lora_rank=4")
    (first,) = (tmp_path / "one").rglob("backbone.safetensors")
    cli = fit(
        tmp_path / "two", f"flowsr_stage2{suffix}.yaml", *arguments, f"{STUDENT}.lora_weights={first}",
        "--model.adversary.init_args.layers=[0, -1]", "--model.adversary.init_args.warmup_steps=0",
        "--model.adversary.init_args.accumulate_grad_batches=1",
    )  # fmt: skip
    backbone = cli.model.backbone
    assert backbone.adapters.names == ["student", "teacher", "target"]
    assert len(cli.model.roles.models) == 0
    assert {name.split(".")[-2] for name, p in backbone.named_parameters() if p.requires_grad} == {"student"}
    assert {"adversarial", "discriminator", "consistency"} <= named(cli)
    # A checkpoint holds student, target and heads; not the base, the teacher or the autoencoder.
    keys = torch.load(checkpoint(tmp_path / "two"), weights_only=True)["state_dict"]
    assert all(".student." in key or ".target." in key or ".heads." in key for key in keys if "objective" not in key)


def test_stage_two_validates(stage_one, stage_two, photos, tmp_path):
    _, folder = stage_two
    config = str(Path(__file__).parents[2] / "examples" / "configs" / "flowsr_stage2_nano.yaml")
    cli = command(
        tmp_path, "validate", "--config", config, *QUIET, f"{STUDENT}.model={stage_one}", "--data.photos=null",
        f"--data.val_photos={photos}", f"--ckpt_path={checkpoint(folder)}",
    )  # fmt: skip
    assert cli.trainer.callback_metrics["val/psnr_y"].isfinite()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.objective.init_args.schedule.init_args.fast_steps=3"], "the grids don't nest"),
        (["--model.teacher=null"], "needs a teacher"),
        (["--model.teacher.init_args.model=nowhere.safetensors"], "nowhere.safetensors does not exist"),
        ([f"{STUDENT}.model=nano", f"{STUDENT}.trainable=lora", f"{STUDENT}.teacher_lora=STAGE1"], "holds no LoRA adapter"),
        (["--model.adversary=fluxsr.training.Adversary"], "gradient"),
    ],
    ids=["grids", "no teacher", "missing teacher", "teacher of another kind", "clipping in the trainer"],
)  # fmt: skip
def test_bad_settings_end_before_training(stage_one, photos, tmp_path, capsys, arguments, message):
    config = Path(__file__).parents[2] / "examples" / "configs" / "flowsr_stage2_nano.yaml"
    error = failure(
        tmp_path, capsys, "fit", "--config", config, *QUIET, f"{STUDENT}.model={stage_one}", f"--data.photos={photos}",
        *(argument.replace("STAGE1", str(stage_one)) for argument in arguments),
    )  # fmt: skip
    assert message in error
    assert error.count("fluxsr: error: ") == 1
