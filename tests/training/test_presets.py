"""The memory presets after the configuration: they change what they name, and no loss falls out."""

from pathlib import Path

import pytest

from fluxsr.cli._support.fit_files import dotted, take_configs

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
BASE = CONFIGS / "fluxsr_flux1dev.yaml"
KLEIN = CONFIGS / "fluxsr_klein4b.yaml"


def keys(*files: Path) -> dict[str, object]:
    """Every key of the files together, with its value."""
    return dotted(take_configs([word for file in files for word in ("--config", str(file))])[0].merged)


@pytest.mark.parametrize(
    ("config", "preset", "crop"),
    [
        (BASE, "80gb", None),
        (BASE, "48gb", 512),
        (BASE, "24gb", 256),
        (KLEIN, "klein_16gb", 256),
        (KLEIN, "klein_12gb", 256),
    ],
)
def test_a_preset_leaves_every_loss_with_its_weight(config, preset, crop):
    base, own = keys(config), keys(config, CONFIGS / "memory" / f"{preset}.yaml")
    losses = {key for key in base if key.startswith("model.losses.")}
    assert losses <= own.keys()
    changed = {key for key in losses if not isinstance(base[key], dict) and own[key] != base[key]}
    assert changed <= {"model.losses.mse.init_args.crop", "model.losses.tv_lpips.init_args.crop"}
    assert own["model.losses.mse.init_args.crop"] == own["model.losses.tv_lpips.init_args.crop"] == crop
    assert own["model.losses.adl.init_args.weight"] == 0.01
