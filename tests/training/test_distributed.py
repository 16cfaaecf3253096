"""Two CPU processes over gloo, with DDP and with FSDP2, make the steps that one process makes on the same global batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import run_script

pytestmark = pytest.mark.torch("2.11")

SHARDED = ["ftd", "ftd, FLUX.2", "ftd, accumulated", "ftd, modulation table", "ftd, in full", "stage 1", "stage 2"]
SHARDED += ["ftd, encoder adapter"]


def run(photos: Path, folder: Path, devices: int, strategy: str, *more: str) -> dict:
    """Train in processes of their own, two by torchrun."""
    folder.mkdir(parents=True, exist_ok=True)
    run_script("distributed_steps.py", devices, photos, folder, devices, strategy, *more)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory) -> dict:
    """What one process recorded, and two under each strategy, with the folders."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {"alone": (1, "auto"), "ddp": (2, "ddp"), "fsdp2": (2, "fsdp2")}
    return {name: (run(photos, folder / name, *setting), folder / name) for name, setting in settings.items()}


def agree(a: dict, b: dict, relative: float) -> None:
    """Tensors by name: each agrees in its norm, or vanishes in both beside the largest."""
    assert a.keys() == b.keys()
    assert a
    largest = max(float(tensor.double().norm()) for tensor in a.values())
    for name, tensor in a.items():
        error = float((tensor.double() - b[name].double()).norm())
        assert error <= relative * max(float(tensor.double().norm()), 1e-2 * largest), (name, error)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("kind", SHARDED)
def test_one_process_and_two_make_the_same_steps(runs, strategy, kind):
    alone, together = runs["alone"][0][kind], runs[strategy][0][kind]
    steps = len(alone["losses"])
    assert steps == (4 if "accumulated" in kind else 2)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert len(alone["gradients"]) == len(together["gradients"]) == 2
    # Later gradients are taken at weights that Adam has divided by tiny gradients, rounding and all.
    agree(alone["gradients"][0], together["gradients"][0], 1e-5)
    agree(alone["gradients"][1], together["gradients"][1], 1e-4)
    agree(alone["weights"], together["weights"], 1e-4)
    if kind == "stage 2":
        agree(alone["targets"], together["targets"], 1e-4)


@pytest.mark.parametrize("kind", SHARDED)
def test_checkpoints_hold_the_same_tensors_whoever_wrote_them(runs, kind):
    states = {}
    for name, (_, folder) in runs.items():
        checkpoint = torch.load(folder / kind / "step=2.ckpt", weights_only=True)
        optimizer = checkpoint["optimizer_states"][0]["state"]
        assert all(not hasattr(tensor, "device_mesh") for tensor in checkpoint["state_dict"].values())
        states[name] = {
            **{key: value for key, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)},
            **{f"moment {i}": state["exp_avg"] for i, state in optimizer.items()},
            **{f"average {key}": value for key, value in checkpoint["callbacks"]["EMA"]["average"].items()},
        }
    for name in ("ddp", "fsdp2"):
        agree(states["alone"], states[name], 1e-4)
        assert {k: v.shape for k, v in states["alone"].items()} == {k: v.shape for k, v in states[name].items()}


@pytest.mark.parametrize("kind", ["ftd", "ftd, FLUX.2", "stage 2"])
def test_adapters_saved_under_each_strategy_load_in_plain_diffusers(runs, kind):
    from tests.models.conftest import tiny_transformer

    files = {name: load_file(folder / kind / "backbone.safetensors") for name, (_, folder) in runs.items()}
    for name, state in files.items():
        agree(files["alone"], state, 1e-4)
        transformer = tiny_transformer(family="flux.2" if "FLUX.2" in kind else "flux.1", in_channels=48)
        transformer.load_lora_adapter(dict(state), prefix="transformer")
        loaded = {n: p for n, p in transformer.named_parameters() if ".lora_" in n}
        assert len(loaded) == len(state), name


def test_a_checkpoint_goes_on_under_another_strategy(runs, photos, tmp_path):
    """Two steps sharded and a third alone, and the other way round, end at the same weights."""

    def go_on(writer: str, devices: int, reader: str) -> dict:
        checkpoint = str(runs[writer][1] / "ftd" / "step=2.ckpt")
        return run(photos, tmp_path / reader, devices, reader, "ftd", checkpoint)["ftd"]

    gathered, sharded = go_on("fsdp2", 1, "auto"), go_on("alone", 2, "fsdp2")
    assert len(gathered["losses"]) == len(sharded["losses"]) == 1  # resumed, not begun again
    assert sharded["losses"] == pytest.approx(gathered["losses"], rel=1e-5)
    agree(gathered["gradients"][0], sharded["gradients"][0], 1e-4)
    agree(gathered["weights"], sharded["weights"], 1e-4)
    first = runs["alone"][0]["ftd"]["weights"]
    assert all(not torch.equal(first[name], weight) for name, weight in gathered["weights"].items())


@pytest.mark.parametrize("kind", ["adversary", "image adversary"])
def test_an_adversary_under_fsdp2_makes_the_same_steps(runs, kind):
    """Its heads are whole on every process, beside a sharded student."""
    alone, together = runs["alone"][0][kind], runs["fsdp2"][0][kind]
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert any(".heads." in name for name in alone["weights"])
    agree(alone["weights"], together["weights"], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adversary", "image adversary"])
def test_an_adversary_under_ddp_makes_the_same_steps(runs, photos, tmp_path, kind):
    together = run(photos, tmp_path, 2, "ddp_find_unused_parameters_true")[kind]
    alone = runs["alone"][0][kind]
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    agree(alone["weights"], together["weights"], 1e-4)
