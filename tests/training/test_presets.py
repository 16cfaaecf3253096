"""The memory presets leave FluxSR's losses what they are: a second configuration file replaces the list of terms."""

from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


@pytest.mark.parametrize("preset", ["80gb", "48gb", "24gb"])
def test_a_preset_names_every_loss_with_its_weight(preset):
    base = yaml.safe_load((CONFIGS / "fluxsr_flux1dev.yaml").read_text())["model"]["losses"]
    own = yaml.safe_load((CONFIGS / "memory" / f"{preset}.yaml").read_text())["model"]["losses"]
    assert own.keys() == base.keys()
    for name, term in own.items():
        assert term["init_args"].get("weight", base[name]["init_args"]["weight"]) == base[name]["init_args"]["weight"]
