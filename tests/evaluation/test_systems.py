import pickle
import sys
from functools import partial
from itertools import product

import pytest
import torch
from safetensors.torch import save_file

from fluxsr.evaluation import bicubic, evaluate, load_model
from fluxsr.evaluation.comparison import gather_systems
from fluxsr.evaluation.imresize import imresize
from fluxsr.evaluation.systems import load_variants, rounded
from fluxsr.evaluation.tables import cost_rows, to_markdown
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


def test_steps_are_the_solvers_and_tell_systems_apart(generator):
    lr_image = rounded(torch.rand(1, 3, 12, 10, generator=generator))
    one, three = (load_model("nano-student", device="cpu", steps=steps) for steps in (1, 3))
    expected = Upscaler.from_pretrained("nano-student", device="cpu")(lr_image[0], scale=4, steps=3)
    picture, _ = three.picture("a", lr_image, (48, 40))
    assert (picture[0] - expected).abs().max() <= 1 / 255
    assert (picture - one.picture("a", lr_image, (48, 40))[0]).abs().max() > 2 / 255
    assert one.identity != three.identity
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        load_model("nano-student", steps=0)


def test_the_color_fix_is_the_upscalers_and_tells_systems_apart(generator):
    lr_image = rounded(torch.rand(1, 3, 12, 10, generator=generator))
    wavelet, none = load_model("nano-student", device="cpu"), load_model("nano-student", device="cpu", color_fix="none")
    expected = Upscaler.from_pretrained("nano-student", device="cpu", color_fix="none")(lr_image[0], scale=4)
    picture, _ = none.picture("a", lr_image, (48, 40))
    assert (picture[0] - expected).abs().max() <= 1 / 255
    assert (picture - wavelet.picture("a", lr_image, (48, 40))[0]).abs().max() > 2 / 255
    assert wavelet.identity != none.identity


def test_variants_share_one_network_and_are_told_apart(testset):
    systems = load_variants("nano-student", "ours", "cpu", (1, 3), ("wavelet", "none"))
    assert [system.name for system in systems] == [
        f"ours, {steps}, color fix {fix}" for steps in ("1 step", "3 steps") for fix in ("wavelet", "none")
    ]
    velocities = {id(system.restore.args[0].velocity.velocity) for system in systems}
    assert len(velocities) == 1 and len({system.identity for system in systems}) == 4
    lr_image = testset.lr_image("a.png")
    for system, (steps, fix) in zip(systems, product((1, 3), ("wavelet", "none")), strict=True):
        alone = load_model("nano-student", "ours", "cpu", steps, fix)
        assert alone.name == "ours" and alone.identity == system.identity
        assert torch.equal(system.picture("a", lr_image, (48, 40))[0], alone.picture("a", lr_image, (48, 40))[0])


def test_a_peer_has_no_color_fix_and_is_measured_once(peer, testset):
    model = str(peer[0] / "small.pth")
    load = partial(load_variants, device="cpu", color_fixes=("wavelet", "none"))
    systems = gather_systems(testset, [], [f"peer={model}"], False, load)
    assert [system.name for system in systems] == ["peer"]


def test_a_peer_takes_no_option_of_ours(peer):
    with pytest.raises(ValueError, match=r"small\.pth .*lora"):
        load_variants(str(peer[0] / "small.pth"), lora="adapter.safetensors")


def test_what_is_chosen_for_a_model_is_what_it_is_measured_with(testset):
    plain, early = (load_variants("nano-student", device="cpu", start_time=time)[0] for time in (None, 0.5))
    lr_image = testset.lr_image(next(iter(testset.items)))
    assert plain.identity != early.identity
    assert not torch.equal(*(one.picture("a", lr_image, (48, 40))[0] for one in (plain, early)))


def test_a_peer_knows_no_steps(peer):
    folder, _ = peer
    with pytest.raises(ValueError, match=r"small.pth knows no steps"):
        load_model(str(folder / "small.pth"), steps=4)


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
            return (print, ("executed",))

    pytest.importorskip("spandrel")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match=r"evil.pth can't be read as a file of weights"):
        load_model(str(tmp_path / "evil.pth"))


def test_what_can_not_be_loaded_is_named(tmp_path, monkeypatch):
    pytest.importorskip("spandrel")
    with pytest.raises(ValueError, match=r"there is no file .*nowhere.pth"):
        load_model(str(tmp_path / "nowhere.pth"))
    torch.save({"a": torch.zeros(2)}, tmp_path / "unknown.pth")
    with pytest.raises(ValueError, match="spandrel knows no model with the weights in"):
        load_model(str(tmp_path / "unknown.pth"))
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="holds no weights by name"):
        load_model(str(tmp_path / "tensor.pth"))
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ValueError, match=r"pip install 'fluxsr\[peers\]'"):
        load_model(str(tmp_path / "unknown.pth"))


def test_bicubic_is_rounded_and_needs_lr_images(testset):
    picture, cost = bicubic().picture("a.png", testset.lr_image("a.png"), (48, 40))
    torch.testing.assert_close(picture * 255, (picture * 255).round(), rtol=0, atol=1e-4)
    assert cost is None and picture.min() >= 0 and picture.max() <= 1
    with pytest.raises(ValueError, match="bicubic needs LR images: give --lr"):
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
