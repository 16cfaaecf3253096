"""``fluxsr plan`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fluxsr.cli.main import main
from fluxsr.planning.advice import Change

CHECKPOINTING = ("gradient_checkpointing", ("--model.backbone.init_args.gradient_checkpointing=true",))
CONFIG = Path(__file__).parent.parent.parent / "examples" / "configs" / "fluxsr_nano.yaml"


def run(capsys, *arguments: str) -> str:
    with torch.random.fork_rng():
        main(["plan", "--config", str(CONFIG), *arguments])
    return capsys.readouterr().out


def test_json_is_all_that_is_printed_and_has_the_keys_that_scripts_read(capsys):
    document = json.loads(run(capsys, "--format", "json", "--devices", "2"))
    assert document["parameters"]["transformer"] == 2_499_008
    assert document["parameters"]["modulation"] == 444_672
    assert document["parameters"]["trainable"] == 208_896
    assert document["peak_bytes"] > 0
    assert document["devices"] == 2 and document["strategy"] == "ddp"


def test_overrides_and_further_configurations_compose_as_in_fit(capsys, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("model:\n  backbone:\n    init_args:\n      gradient_checkpointing: true\n")
    plain = json.loads(run(capsys, "--format", "json"))
    both = json.loads(
        run(capsys, "--config", str(preset), "--model.backbone.init_args.lora_rank", "32", "--format", "json")
    )
    assert both["peak_bytes"] < plain["peak_bytes"]
    assert both["parameters"]["trainable"] == 2 * plain["parameters"]["trainable"]


def test_too_little_memory_gives_advice_and_enough_says_so(capsys, monkeypatch):
    assert "fits: into 24.00 GB less 2.00 GB reserve" in run(capsys, "--memory", "24GB")
    monkeypatch.setattr("fluxsr.planning.advice.possible_changes", lambda *_: [Change(*CHECKPOINTING)])
    document = json.loads(run(capsys, "--memory", "300MB", "--reserve", "0GB", "--format", "json"))
    assert not document["fits"]
    (advice,) = document["advice"]
    assert advice["what"] == "gradient_checkpointing" and advice["fits"]
    assert advice["peak_bytes"] == document["peak_bytes"] - advice["saves_bytes"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--model.backbone.init_args.lora_rnk", "16"), "lora_rnk"),
        (("--devices", "0"), "devices"),
        (("--memroy", "48GB"), "--memroy"),
        (("--trainer.max_stepz", "3"), "--trainer.max_stepz"),
        (("--memory", "lots"), "24GB"),
        (("--data.crop", "null"), "data.crop"),
        (("--model.backbone.init_args.model", "somebody/unknown"), "somebody/unknown"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, wrong, message):
    with pytest.raises(SystemExit) as exit_info:
        run(capsys, *wrong)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.splitlines()[-1].startswith("fluxsr: error:")
