"""Plans of whole configurations, as numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fluxsr.cli._support.fit_cli import read_experiment
from fluxsr.planning import Experiment, advice, advise, make_plan
from fluxsr.planning.plan import choose_sharding, units_in_flight

CONFIGS = Path(__file__).parent.parent.parent / "examples" / "configs"
BACKBONE = "--model.backbone.init_args"
NANO = [f"{BACKBONE}.model=nano", f"{BACKBONE}.prompt=null", f"{BACKBONE}.guidance=null"]


def read(config: str, *arguments: str) -> Experiment:
    with torch.random.fork_rng():
        return read_experiment(["--config", str(CONFIGS / config), *arguments])


def plan(config: str, *arguments: str, **options):
    return make_plan(read(config, *arguments), **options)


@pytest.fixture(scope="module")
def nano():
    return plan("fluxsr_nano.yaml")


def test_the_nano_models_parameters_are_counted_by_part(nano):
    from fluxsr.models import load_flux

    backbone = load_flux("nano", lora_rank=16)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert nano.parameters["transformer"] == 2_499_008
    assert nano.parameters["modulation"] == 4 * 3 * (192 * 192 + 192)
    # In four blocks: query, key and value, the MLP's way in, and the way out of both.
    assert nano.parameters["trainable"] == trained == 4 * 16 * (3 * (192 + 192) + (192 + 768) + (960 + 192))


def test_what_adam_and_the_average_hold_follows_from_the_trained_weights(nano):
    trained = 4 * nano.parameters["trainable"]
    assert nano.held_bytes["trained"] == nano.held_bytes["ema"] == trained
    assert trained * 2 <= nano.held_bytes["optimizer"] <= trained * 2 + 4 * 1000  # two moments and the step counts
    assert nano.checkpoint_bytes == 2 * trained + nano.held_bytes["optimizer"]


def test_a_time_that_is_to_be_measured_changes_nothing(nano):
    later = plan("fluxsr_nano.yaml", "--model.objective.init_args.lr_time=auto")
    assert (later.peak_bytes, later.flops_per_step) == (nano.peak_bytes, nano.flops_per_step)


def test_the_peak_is_the_largest_phase_and_the_sum_of_its_parts(nano):
    assert nano.peak_bytes == max(phase.peak_bytes for phase in nano.phases)
    assert sum(nano.peak.values()) == pytest.approx(nano.peak_bytes, abs=100)
    assert [phase.phase for phase in nano.phases] == ["encode", "flow", "decode", "losses", "backward", "optimizer"]


def test_steps_per_hour_come_from_the_stated_throughput(nano):
    assert nano.steps_per_hour == pytest.approx(3600 * 400e12 / nano.flops_per_step)
    fast, slow = nano.seconds_range
    assert fast < nano.seconds_per_step < slow and slow == pytest.approx(3 * fast)
    assert nano.hours == pytest.approx(500 / nano.steps_per_hour)
    slower = plan("fluxsr_nano.yaml", tflops=200.0)
    assert slower.steps_per_hour == pytest.approx(nano.steps_per_hour / 2)


def test_flops_of_linears_are_two_per_weight_and_token():
    # A forward pass without gradient is one product, a step on frozen weights at least two passes of forward and backward.
    result = plan("fluxsr_nano.yaml", "--model.losses=null")
    base = 2_499_008 - 444_672 - 74_112
    forward = 2 * base * 8 * 16 * 16  # 256 tokens
    flow = next(phase.flops for phase in result.phases if phase.phase == "flow")
    # Two passes, and attention, the adapters and the modulation on top; the embedders see one vector.
    assert 2 * forward * 0.9 < flow < 2 * forward * 1.6


def test_checkpointing_recomputes_the_blocks_and_keeps_less(nano):
    saving = plan("fluxsr_nano.yaml", f"{BACKBONE}.gradient_checkpointing=true")
    assert saving.peak_bytes < 0.5 * nano.peak_bytes
    flow = next(phase.flops for phase in nano.phases if phase.phase == "flow")
    assert 0.9 * flow < saving.flops_per_step - nano.flops_per_step < 1.01 * flow


def test_the_modulation_table_takes_the_layers_away(nano):
    grid = "--model.objective.init_args.time_sampler"
    table = plan(
        "fluxsr_nano.yaml", "--model.modulation_table=true", f"{grid}=fluxsr.flows.GridTimes", f"{grid}.steps=16"
    )
    assert table.parameters["modulation"] == 0
    assert "modulation" not in table.held_bytes
    assert table.parameters["trainable"] == nano.parameters["trainable"]


def test_quantized_linears_are_counted_by_formula():
    whole = plan("fluxsr_flux1dev.yaml", *NANO, *SMALL)
    eight = plan("fluxsr_flux1dev.yaml", *NANO, *SMALL, f"{BACKBONE}.quantize=int8")
    four = plan("fluxsr_flux1dev.yaml", *NANO, *SMALL, f"{BACKBONE}.quantize=nf4")
    assert eight.held_bytes["modulation"] == pytest.approx(whole.held_bytes["modulation"] / 2)
    assert four.held_bytes["transformer linears"] == pytest.approx(
        whole.held_bytes["transformer linears"] * 0.516 / 2, rel=1e-3
    )
    assert eight.held_bytes["transformer"] == whole.held_bytes["transformer"]


# The published configuration on the nano model: another autoencoder's channels, small images.
SMALL = [
    "--model.autoencoder=fluxsr.models.PixelAutoencoder",
    "--data.crop=64",
    "--model.losses.mse.init_args.crop=32",
    "--model.losses.tv_lpips.init_args.crop=32",
]


def test_fsdp2_divides_what_is_held_and_adds_the_units_in_flight():
    one = plan("fluxsr_nano.yaml")
    four = plan("fluxsr_nano.yaml", devices=4, strategy="fsdp2")
    for kind in ("transformer linears", "modulation", "trained", "optimizer", "ema"):
        assert four.held_bytes[kind] == pytest.approx(one.held_bytes[kind] / 4, abs=1)
    assert four.held_bytes["loss networks"] == one.held_bytes["loss networks"]
    assert four.peak["units in flight"] == units_in_flight(read("fluxsr_nano.yaml").module.backbone)
    assert four.checkpoint_bytes == pytest.approx(one.checkpoint_bytes, abs=10)  # one file, whole


def test_ddp_adds_buckets_as_large_as_the_gradients(nano):
    two = plan("fluxsr_nano.yaml", devices=2)
    assert two.strategy == "ddp"
    assert two.peak_bytes - nano.peak_bytes == two.peak["gradient buckets"] == 4 * nano.parameters["trainable"]


def test_accumulated_gradients_stay_during_the_step(nano):
    accumulated = plan("fluxsr_nano.yaml", "--trainer.accumulate_grad_batches=4")
    assert accumulated.peak["gradients"] == 4 * nano.parameters["trainable"]
    assert accumulated.flops_per_step == pytest.approx(4 * nano.flops_per_step)


@pytest.mark.parametrize(
    ("asked", "configured", "devices", "expected"),
    [
        ("auto", "auto", 1, "none"),
        ("auto", "auto", 2, "ddp"),
        ("auto", "fsdp2", 2, "fsdp2"),
        ("auto", "fluxsr.training.FSDP2Strategy", 2, "fsdp2"),
        ("auto", "lightning.pytorch.strategies.ModelParallelStrategy", 2, "fsdp2"),
        ("ddp", "fsdp2", 2, "ddp"),
        ("fsdp2", "auto", 8, "fsdp2"),
    ],
)
def test_the_strategy_is_the_one_asked_for_else_the_configured_one(asked, configured, devices, expected):
    assert choose_sharding(asked, configured, devices) == expected


def test_a_quantized_base_is_not_sharded():
    experiment = read("fluxsr_flux1dev.yaml", *NANO, *SMALL, f"{BACKBONE}.quantize=int8")
    with pytest.raises(ValueError, match="can't shard int8"):
        make_plan(experiment, devices=2, strategy="fsdp2")


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"tflops": 0.0}, {"devices": 2, "strategy": "horovod"}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"0|horovod"):
        plan("fluxsr_nano.yaml", **wrong)


def test_images_without_a_size_are_refused():
    with pytest.raises(ValueError, match=r"data\.crop"):
        plan("fluxsr_nano.yaml", "--data.crop=null")


def test_advice_is_the_plan_of_the_changed_configuration(nano, monkeypatch):
    every = advice.possible_changes
    chosen = ("gradient_checkpointing", "LoRA of rank 8")
    monkeypatch.setattr(advice, "possible_changes", lambda *args: [one for one in every(*args) if one.what in chosen])
    experiment = read("fluxsr_nano.yaml")
    found = advise(
        lambda more: read("fluxsr_nano.yaml", *more), experiment, make_plan(experiment), limit=0.5 * nano.peak_bytes
    )
    by_name = {one.what: one for one in found}
    checkpointing = by_name["gradient_checkpointing"]
    assert checkpointing.peak_bytes == plan("fluxsr_nano.yaml", *checkpointing.arguments).peak_bytes
    assert checkpointing.saves_bytes == nano.peak_bytes - checkpointing.peak_bytes
    assert checkpointing.fits
    assert not by_name["LoRA of rank 8"].fits
    assert [one.saves_bytes for one in found] == sorted((one.saves_bytes for one in found), reverse=True)


def test_what_a_configuration_has_already_is_not_advised(nano):
    def changes(*arguments: str) -> set[str]:
        return {one.what for one in advice.possible_changes(read("fluxsr_nano.yaml", *arguments), nano)}

    plain = changes()
    assert {
        "gradient_checkpointing",
        "modulation_table",
        "8-bit Adam",
        "FSDP2 over 2 devices",
        "quantize: int8",
    } <= plain
    assert "checkpoint_decode" not in plain  # there is no decoder
    assert plain - changes(f"{BACKBONE}.gradient_checkpointing=true") == {"gradient_checkpointing"}


def test_flux2_is_advised_to_leave_its_text_stream_out_and_no_table(nano):
    small = [f"{BACKBONE}.model=nano2", "--model.autoencoder.init_args.source=pixel", f"{BACKBONE}.lora_rank=8"]
    grid = ["--model.objective.init_args.time_sampler=fluxsr.flows.UniformTimes"]

    def changes(*arguments):
        return {one.what for one in advice.possible_changes(read("fluxsr_klein4b.yaml", *small, *arguments), nano)}

    assert "text_stream left out" in changes(f"{BACKBONE}.text_stream=true")
    assert not {"text_stream left out", "modulation_table"} & changes(*grid)
    assert "modulation_table" in {one.what for one in advice.possible_changes(read("fluxsr_nano.yaml", *grid), nano)}


def test_an_8_bit_adam_has_two_bytes_a_weight(nano):
    small = plan("fluxsr_nano.yaml", "--model.optimizer=fluxsr.training.AdamW8bit")
    weights = nano.parameters["trainable"]
    assert 2 * weights < small.held_bytes["optimizer"] < 2.2 * weights


@pytest.mark.torch("2.9")
@pytest.mark.parametrize("config", ["teacher_nano.yaml", "student_nano.yaml", "flowsr_stage1_nano.yaml"])
def test_every_configuration_without_earlier_stages_has_a_plan(config):
    result = plan(config)
    assert result.peak_bytes > sum(result.held_bytes.values()) > 0


@pytest.mark.torch("2.9")
@pytest.mark.parametrize("batch_size", [1, 2])
def test_flowsr_with_teacher_average_and_adversary_has_a_plan(batch_size):
    stage1 = [f"{BACKBONE}.model=nano", "--model.teacher.init_args.model=nano", f"--data.batch_size={batch_size}"]
    result = plan("flowsr_stage2_nano.yaml", *stage1)
    assert result.held_bytes["frozen roles"] == 2 * 4 * 2_499_008  # the teacher and the moving average
    assert {phase.phase for phase in result.phases} >= {"flow", "losses", "backward", "optimizer"}


@pytest.mark.slow
def test_flux1_dev_as_published():
    result = plan("fluxsr_flux1dev.yaml")
    assert result.parameters["transformer"] == 11_901_408_320
    assert result.parameters["modulation"] == 3_228_567_552
    assert result.parameters["norm_out"] == 18_880_512
    assert result.parameters["autoencoder"] == 83_819_683
    held = result.held_bytes
    assert held["transformer linears"] + held["transformer"] + held["modulation"] == 2 * 11_901_408_320


@pytest.mark.slow
@pytest.mark.parametrize(("rung", "memory"), [(None, 24e9), ("klein_16gb", 16e9), ("klein_12gb", 12e9)])
def test_klein_4b_fits_the_card_that_its_rung_is_for(rung, memory):
    result = plan(
        "fluxsr_klein4b.yaml", *([] if rung is None else ["--config", str(CONFIGS / "memory" / f"{rung}.yaml")])
    )
    assert result.parameters["transformer"] == 3_181_911_552
    assert result.parameters["autoencoder"] == 84_046_115
    assert result.peak_bytes < memory - 2e9  # what fluxsr plan leaves to the CUDA context and the libraries


def test_host_memory_is_what_a_process_trains_and_the_frozen_files_that_all_share(nano):
    assert nano.host_bytes == nano.checkpoint_bytes + 4 * nano.parameters["trainable"]
    frozen = nano.parameters["total"] - nano.parameters["trainable"]
    assert 2 * frozen <= nano.host_shared_bytes <= 4 * frozen


def test_validation_is_planned_by_crop_or_photo_and_tile():
    photos = "--data.val_photos=somewhere"
    assert plan("fluxsr_nano.yaml").validation is None
    crops = plan("fluxsr_nano.yaml", photos, "--data.val_crop=64").validation
    assert (crops.batch_size, crops.height, crops.width) == (8, 64, 64)
    tiled = plan("fluxsr_nano.yaml", photos, photo=(255, 400)).validation
    assert (tiled.batch_size, tiled.height, tiled.width, tiled.tile) == (1, 252, 400, 128)
    whole = plan("fluxsr_nano.yaml", photos, "--model.tile=null", photo=(255, 400))
    assert whole.validation.peak_bytes > 1.5 * tiled.peak_bytes
    assert sum(tiled.peak.values()) == pytest.approx(tiled.peak_bytes, abs=100)
    assert whole.to_dict()["validation"]["tile"] is None
    with pytest.raises(ValueError, match="3x400"):
        plan("fluxsr_nano.yaml", photos, photo=(400, 3))


def test_what_is_validated_does_not_change_the_step(nano):
    assert plan("fluxsr_nano.yaml", "--data.val_photos=somewhere", photo=(64, 64)).peak_bytes == nano.peak_bytes


def test_a_validation_that_does_not_fit_is_tiled(monkeypatch):
    every = advice.possible_changes
    monkeypatch.setattr(advice, "possible_changes", lambda *args: [one for one in every(*args) if "tiles" in one.what])
    whole = ["--data.val_photos=somewhere", "--model.tile=null"]
    experiment = read("fluxsr_nano.yaml", *whole)
    large = make_plan(experiment, photo=(2048, 2048))
    assert large.needed_bytes > large.peak_bytes
    (tiled,) = advise(
        lambda more: read("fluxsr_nano.yaml", *whole, *more), experiment, large, large.peak_bytes, photo=(2048, 2048)
    )
    assert tiled.arguments == ["--model.tile=1024"]
