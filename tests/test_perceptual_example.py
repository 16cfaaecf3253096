"""The training of the small perceptual network: a configuration of `fluxsr fit` with classes of an example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from examples.perceptual.distillation import PerceptualTargets, distillation_loss, pair_maps
from examples.perceptual.distortions import distort
from examples.perceptual.make_targets import to_input
from fluxsr.losses.perceptual_nano import PerceptualNano, load_perceptual_nano
from fluxsr.training.callbacks import EMA
from tests.cli.test_fit import CONFIGS, QUIET, command

SIZE = 4  # images in a group; the real ones have nine
# Lists are replaced as a whole: an average that follows within a few steps, and every second one's checkpoint.
CALLBACKS = """\
trainer:
  callbacks:
    - {class_path: fluxsr.training.callbacks.EMA, init_args: {decay: 0.5}}
    - {class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {every_n_train_steps: 2, save_top_k: -1}}
"""


def make_store(folder: Path, groups: int = 6) -> None:
    """A store of small groups whose targets are the shipped network's own distances."""
    rng = np.random.default_rng(0)
    photo = data.astronaut().astype(np.float32) / 255
    images = []
    for number in range(groups):
        crop = photo[20 * number : 20 * number + 64, 100:164]
        versions = [crop, *(distort(crop, rng) for _ in range(SIZE - 1))]
        images.append((np.stack(versions) * 255).round().astype(np.uint8))
    teacher = load_perceptual_nano()
    rows, columns = torch.triu_indices(SIZE, SIZE, 1)
    maps = torch.zeros(groups, SIZE, SIZE, 8, 8)
    with torch.no_grad():
        maps[:, rows, columns] = pair_maps(teacher, torch.stack([to_input(group, False) for group in images]))
    arrays = {
        "images": np.stack(images),
        "tv": np.zeros(groups, bool),
        "maps": (maps + maps.mT.transpose(1, 2)).numpy(),
    }
    for name in ("targets-00000", "held_out"):
        np.savez(folder / f"{name}.npz", **arrays)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    make_store(folder)
    return folder


def fit(folder: Path, store: Path, steps: int, *arguments: str):
    (folder / "callbacks.yaml").write_text(CALLBACKS)
    trainer = {"max_steps": steps, "val_check_interval": steps, "precision": "32-true", "num_sanity_val_steps": 0}
    return command(
        folder, "fit", "--config", str(CONFIGS / "perceptual_nano.yaml"), "--config=callbacks.yaml",
        f"--data.store={store}", "--data.groups=2", *(f"--trainer.{key}={value}" for key, value in trainer.items()),
        *QUIET, *arguments,
    )  # fmt: skip


def test_maps_average_to_the_distance_of_each_pair():
    net = load_perceptual_nano()
    images = to_input(np.stack([data.astronaut()[:64, s : s + 64] for s in (0, 3, 90)]), False)
    with torch.no_grad():
        maps = pair_maps(net, images[None])[0]
        expected = torch.cat([net(images[i : i + 1], images[j : j + 1]).flatten() for i, j in ((0, 1), (0, 2), (1, 2))])
    torch.testing.assert_close(maps.mean((-2, -1)), expected, rtol=1e-4, atol=1e-5)


def test_it_learns_and_writes_what_the_library_loads(tmp_path, store):
    chunk = np.load(store / "held_out.npz")
    images = torch.stack([to_input(group, False) for group in chunk["images"]])
    rows, columns = torch.triu_indices(SIZE, SIZE, 1)
    targets = torch.from_numpy(chunk["maps"])[:, rows, columns]

    def error(net: PerceptualNano) -> float:
        with torch.no_grad():
            return float(distillation_loss(pair_maps(net, images), targets))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = error(PerceptualNano())
    cli = fit(
        tmp_path, store, 31, "--trainer.val_check_interval=15", "--model.lr=0.02"
    )  # the last step is none that validates
    net = load_perceptual_nano(tmp_path / "outputs/perceptual_nano/perceptual_nano.safetensors")
    assert error(net) < 0.7 * before
    assert all(float(head.min()) >= 0 for head in net.heads)
    ema = next(callback for callback in cli.trainer.callbacks if isinstance(callback, EMA))
    for name, tensor in net.state_dict().items():  # stored in float16
        torch.testing.assert_close(tensor, ema.average[f"net.{name}"].half().float(), rtol=0, atol=0)


def test_validation_alone_writes_nothing(tmp_path, store, capsys):
    command(tmp_path, "validate", "--config", str(CONFIGS / "perceptual_nano.yaml"), f"--data.store={store}", *QUIET)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert "val/rank_correlation" in capsys.readouterr().out


def test_a_resumed_training_draws_what_an_uninterrupted_one_does(tmp_path, store):
    expected = fit(tmp_path, store, 4).model.net.state_dict()
    checkpoint = next(tmp_path.rglob("*step=2.ckpt"))
    found = fit(tmp_path, store, 4, f"--ckpt_path={checkpoint}").model.net.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, r"no targets-\*\.npz in .*make_targets"),
        ({"groups": 64}, "groups must be between 1 and 40"),
        ({"descents": -3}, "descents is a share, between 0 and 1, got -3"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, said):
    with pytest.raises(ValueError, match=said):
        PerceptualTargets(str(tmp_path), **arguments)
