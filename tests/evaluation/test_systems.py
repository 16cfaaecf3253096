import pickle
import sys
from functools import partial
from itertools import product

import pytest
import torch
from safetensors.torch import save_file

from fluxsr.evaluation import bicubic, evaluate, load_model
from fluxsr.evaluation.systems import load_systems
from fluxsr.evaluation.tables import cost_rows, to_markdown
from fluxsr.images.resize import imresize, rounded
from fluxsr.inference import Upscaler


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """A random Real-ESRGAN of one small block, as its authors save it."""
    spandrel = pytest.importorskip("spandrel")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = spandrel.architectures.ESRGAN.ESRGAN(num_filters=8, num_blocks=1, scale=4).eval()
    folder = tmp_path_factory.mktemp("peer")
    torch.save({"params_ema": network.state_dict()}, folder / "small.pth")
    save_file(network.state_dict(), folder / "small.safetensors")
    return folder, network


@pytest.mark.parametrize("name", ["small.pth", "small.safetensors"])
def test_what_spandrel_loads_is_a_system(peer, name, generator):
    folder, network = peer
    system = load_model(str(folder / name), device="cpu")
    lr_image = torch.rand(1, 3, 12, 10, generator=generator)
    picture, cost = system.picture("a", lr_image, (48, 40))
    with torch.no_grad():
        torch.testing.assert_close(picture, rounded(network(lr_image)))
    assert system.name == "small" and cost["seconds"]["network"] <= cost["seconds"]["total"]


def test_the_shipped_student_restores_as_the_upscaler_does_and_its_stages_are_timed(photo):
    lr_image = rounded(imresize(photo[..., :64, :64], (16, 16)))
    system = load_model("nano-student", "ours", device="cpu")
    picture, cost = system.picture("a", lr_image, (64, 64))
    expected = Upscaler.from_pretrained("nano-student", device="cpu")(lr_image[0], scale=4)
    assert (picture[0] - expected).abs().max() <= 1 / 255
    stages = {name: cost["seconds"][name] for name in ("encode", "velocity", "decode")}
    assert all(seconds > 0 for seconds in stages.values()) and sum(stages.values()) <= cost["seconds"]["total"]


@pytest.mark.parametrize("chosen", [{"steps": 3}, {"color_fix": "none"}])
def test_steps_and_color_fix_are_the_upscalers_and_tell_systems_apart(chosen, generator):
    lr_image = rounded(torch.rand(1, 3, 12, 10, generator=generator))
    plain, other = load_model("nano-student", device="cpu"), load_model("nano-student", device="cpu", **chosen)
    fix, steps = chosen.get("color_fix", "wavelet"), chosen.get("steps", 1)
    expected = Upscaler.from_pretrained("nano-student", device="cpu", color_fix=fix)(lr_image[0], scale=4, steps=steps)
    picture, _ = other.picture("a", lr_image, (48, 40))
    assert (picture[0] - expected).abs().max() <= 1 / 255
    assert (picture - plain.picture("a", lr_image, (48, 40))[0]).abs().max() > 2 / 255
    assert plain.identity != other.identity


LOAD = partial(Upscaler.from_pretrained, device="cpu")


def test_variants_are_of_one_network_and_told_apart(testset):
    loaded = []
    systems = load_systems(
        "ours=nano-student", lambda model: loaded.append(model) or LOAD(model), "cpu", (1, 3), ("wavelet", "none")
    )
    assert [system.name for system in systems] == [
        f"ours, {steps}, color fix {fix}" for steps in ("1 step", "3 steps") for fix in ("wavelet", "none")
    ]
    assert loaded == ["nano-student"] and len({system.identity for system in systems}) == 4
    lr_image = testset.lr_image("a.png")
    for system, (steps, fix) in zip(systems, product((1, 3), ("wavelet", "none")), strict=True):
        alone = load_model("nano-student", "ours", "cpu", steps, fix)
        assert alone.name == "ours" and alone.identity == system.identity
        assert torch.equal(system.picture("a", lr_image, (48, 40))[0], alone.picture("a", lr_image, (48, 40))[0])


def test_a_peer_has_no_color_fix_and_is_measured_once(peer):
    systems = load_systems(f"peer={peer[0] / 'small.pth'}", LOAD, "cpu", color_fixes=("wavelet", "none"))
    assert [system.name for system in systems] == ["peer"]


def test_what_is_chosen_for_a_model_is_what_it_is_measured_with(testset):
    chosen = [{}, {"start_time": 0.5}, {"window": 32}, {"grid_fix": False}, {"ensemble": True}, {"dtype": "bfloat16"}]
    systems = [load_systems("nano-student", partial(LOAD, **one), "cpu")[0] for one in chosen]
    assert len({one.identity for one in systems}) == len(systems)
    lr_image = testset.lr_image(next(iter(testset.items)))
    assert not torch.equal(*(one.picture("a", lr_image, (48, 40))[0] for one in systems[:2]))


@pytest.mark.parametrize(("model", "steps"), [("small.pth", 4), ("nano-student", 0)])
def test_steps_that_can_not_be_are_refused(peer, model, steps):
    with pytest.raises(ValueError, match="steps"):
        load_model(str(peer[0] / model) if model.endswith("pth") else model, steps=steps)


def test_the_identity_is_that_of_the_contents(peer, tmp_path):
    folder, _ = peer
    system = load_model(str(folder / "small.pth"), device="cpu")
    copy = tmp_path / "other.pth"
    copy.write_bytes((folder / "small.pth").read_bytes())
    assert load_model(str(copy), device="cpu").identity == system.identity
    assert load_model("nano-student").identity == load_model("nano-student").identity != system.identity


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    pytest.importorskip("spandrel")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match=r"evil.pth"):
        load_model(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [None, {"a": torch.zeros(2)}, torch.zeros(2)])
def test_what_can_not_be_loaded_is_named(tmp_path, content, monkeypatch):
    pytest.importorskip("spandrel")
    if content is not None:
        torch.save(content, tmp_path / "unknown.pth")
    with pytest.raises(ValueError, match=r"unknown.pth"):
        load_model(str(tmp_path / "unknown.pth"))
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ValueError, match=r"pip install 'fluxsr\[peers\]'"):
        load_model(str(tmp_path / "unknown.pth"))


def test_bicubic_is_rounded_and_needs_lr_images(testset):
    picture, cost = bicubic().picture("a.png", testset.lr_image("a.png"), (48, 40))
    torch.testing.assert_close(picture * 255, (picture * 255).round(), rtol=0, atol=1e-4)
    assert cost is None and picture.min() >= 0 and picture.max() <= 1
    with pytest.raises(ValueError, match="LR images"):
        bicubic().picture("a.png", None, (48, 40))


def test_costs_are_in_the_results(peer, testset):
    results = evaluate(testset, [load_model(str(peer[0] / "small.pth"), device="cpu")], ["psnr"])
    summary = results["systems"]["small"]["cost_summary"]
    assert summary["images"] == 2 and set(summary["median_seconds"]) == {"total", "network"}
    entry = results["systems"]["small"]
    assert entry["parameters"] == sum(parameter.numel() for parameter in peer[1].parameters())
    assert entry["macs"]["of"] == [12, 10] and entry["macs"]["stages"]["network"] > entry["parameters"]
    total = next(row for row in cost_rows(results) if row[1] == "total")
    assert float(total[4]) == pytest.approx(entry["macs"]["stages"]["total"] / 1e9, rel=0.01) and total[5]
    assert "MACs are those of an LR image of 10x12 pixels" in to_markdown(results)
