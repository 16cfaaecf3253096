"""Every example runs, and shows what it says."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    "name", ["import_one_loss", "bring_your_own_velocity_model", "fast_slow_schedule", "consistency_around_a_unet"]
)
def test_the_loss_falls(name, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    values = [float(match) for match in re.findall(r"step \d+: (?:FTD )?([\d.]+)", capsys.readouterr().out)]
    assert len(values) == 4
    assert values[-1] < 0.8 * values[0]


def test_the_subclass_adds_its_loss_and_metric(tmp_path, monkeypatch):
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()[:200, :200]).save(tmp_path / f"{name}.png")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["subclass_the_module.py", str(tmp_path)])
    import subclass_the_module

    trainer = subclass_the_module.main(str(tmp_path), steps=2)
    assert {"train/edges", "train/l1", "train/flow"} <= set(trainer.callback_metrics)
    trainer.validate(trainer.model, datamodule=trainer.datamodule, verbose=False)
    assert "val/ssim" in trainer.callback_metrics
