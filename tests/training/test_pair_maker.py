from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from PIL import Image
from safetensors.torch import load_file

from fluxsr.cli.main import main
from fluxsr.cli.pairs import tell_pairs
from fluxsr.data import PairStore, TeacherPairs
from fluxsr.data.pair_store import draw_noise
from fluxsr.flows import euler, resolution_shift
from fluxsr.flows.solvers import time_grid
from fluxsr.images import read_image
from fluxsr.models import PromptEmbedding, load_autoencoder, load_flux
from fluxsr.models.families import FLUX1, FLUX2
from fluxsr.models.sources import ModelSource
from fluxsr.models.weight_files import weights_digest
from fluxsr.processes import ALONE
from fluxsr.training.pair_maker import find_photos, make_pairs, middle_square
from tests.cli.conftest import euler_by_hand, files
from tests.models.conftest import tiny_prompt, tiny_transformer
from tests.models.test_autoencoders import tiny_kl

# Shards of three in batches of two: a batch border inside a shard, and an incomplete batch.
SMALL = {"num": 6, "steps": 2, "batch_size": 2, "shard_size": 3, "size": 32, "seed": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An uninterrupted store of the teacher's own images."""
    return make_pairs(str(tmp_path_factory.mktemp("store") / "pairs"), **SMALL).folder


@pytest.fixture
def copy(store, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(store, tmp_path / "copy")


def test_the_latents_are_the_teachers_from_the_stores_noise(store, teacher):
    opened = PairStore.open(store)
    noise = torch.stack([opened.noise(index) for index in range(6)])
    assert noise.equal(torch.stack([draw_noise(4, index, (48, 8, 8)) for index in range(6)]))
    shards = [load_file(opened.shard_path(index)) for index in range(2)]
    latents = torch.cat([shard["latents"] for shard in shards])
    torch.testing.assert_close(latents, euler_by_hand(teacher, noise, steps=2), rtol=0, atol=1e-5)


def test_the_images_are_the_decoded_latents_to_8_bit(store, pixel):
    shard = load_file(store / "pairs-00001.safetensors")
    assert shard["images"].dtype == torch.uint8
    assert shard["images"].shape == (3, 3, 32, 32)
    difference = shard["images"].float() / 255 - pixel.decode(shard["latents"]).clamp(0, 1)
    assert difference.abs().max() <= 0.5 / 255 + 1e-6


def test_the_manifest_says_what_made_the_pairs(store):
    fingerprint = PairStore.open(store).fingerprint
    assert fingerprint["model"] == "nano"
    assert (fingerprint["steps"], fingerprint["size"], fingerprint["shift"]) == (2, 32, 1.0)
    assert fingerprint["autoencoder"] == {"kind": "pixel", "downsample": 4, "shift": 0.5, "scale": 4.0}


@pytest.mark.parametrize(("shard", "lost"), [(0, False), (1, True)])
def test_a_lost_or_cut_off_shard_is_made_again_the_same(store, copy, shard, lost):
    path = copy / f"pairs-{shard:05d}.safetensors"
    path.unlink() if lost else path.write_bytes(path.read_bytes()[:-100])
    reported = []
    made = make_pairs(str(copy), **SMALL, progress=lambda done, total: reported.append((done, total)))
    assert files(copy) == files(store)
    assert made.done_before == 3 and reported == [(5, 6), (6, 6)]


def test_an_interrupted_store_is_finished_the_same(store, tmp_path, monkeypatch, capsys):
    write = PairStore.write_shard

    def interrupted(self, shard_index, *tensors, **how):
        if shard_index == 1:
            raise KeyboardInterrupt
        write(self, shard_index, *tensors, **how)

    folder = tmp_path / "pairs"
    arguments = [word for key, value in SMALL.items() for word in (f"--{key}", str(value))]
    with monkeypatch.context() as patch:
        patch.setattr(PairStore, "write_shard", interrupted)
        with pytest.raises(SystemExit) as stopped:
            main(["pairs", "--output", str(folder), *arguments])
    assert stopped.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert set(files(folder)) == {"manifest.json", "pairs-00000.safetensors"}
    with pytest.raises(ValueError, match="3 of 6 pairs are missing"):
        TeacherPairs(folder)
    main(["pairs", "--output", str(folder), *arguments])
    assert files(folder) == files(store)


def test_a_finished_store_is_left_alone(store, copy, monkeypatch):
    monkeypatch.setattr(PairStore, "write_shard", None)
    make_pairs(str(copy), **SMALL)
    assert files(copy) == files(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 3}, "steps is 2 there, 3 here"),
        ({"seed": 5}, "seed is 4 there, 5 here"),
        ({"size": 40}, "size is 32 there, 40 here"),
        ({"batch_size": 3}, "batch_size is 2 there, 3 here"),
        ({"shift": 2.0}, "shift is 1.0 there, 2.0 here"),
    ],
)
def test_pairs_of_two_kinds_are_not_mixed(store, copy, change, message):
    with pytest.raises(ValueError, match=message):
        make_pairs(str(copy), **{**SMALL, **change})
    assert files(copy) == files(store)


def test_a_store_grows_and_is_used_shorter(store, tmp_path, monkeypatch):
    """Batches of two: the third pair is made alone first, and then has the bits that it has beside a fourth."""
    folder = str(tmp_path / "pairs")
    for num, before in ((2, 0), (3, 2), (6, 3)):
        made = make_pairs(folder, **{**SMALL, "num": num})
        assert (made.num, made.done_before) == (num, before)
    assert files(folder) == files(store)
    monkeypatch.setattr(PairStore, "write_shard", None)
    for num in (2, 6):
        made = make_pairs(folder, **{**SMALL, "num": num, "shard_size": 5})
        assert made.num == made.done_before == len(TeacherPairs(folder)) == num
    assert files(folder) == files(store)


def test_another_teacher_under_the_same_name_is_refused_and_the_same_under_another_is_not(tmp_path):
    def save(seed: int, name: str) -> str:
        tiny_transformer(seed=seed, in_channels=192).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    options = {**SMALL, "output": str(tmp_path / "pairs"), "autoencoder": "pixel", "size": 8}
    make_pairs(**options, model=save(0, "model"))
    with pytest.raises(ValueError, match="weights is"):
        make_pairs(**options, model=save(1, "model"))
    assert make_pairs(**options, model=save(0, "elsewhere")).done_before == 6


def test_another_autoencoder_of_the_same_kind_is_refused(pipeline, tmp_path):
    options = {"output": str(tmp_path / "pairs"), "model": str(pipeline), **LOCAL}
    make_pairs(**options)
    tiny_kl(seed=5).save_pretrained(tmp_path / "tuned" / "vae")
    with pytest.raises(ValueError, match="autoencoder weights is"):
        make_pairs(**options, autoencoder=str(tmp_path / "tuned"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num": 0}, "num.* at least 1, got 0"),
        ({"steps": 0}, "steps.* at least 1, got 6, 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"shard_size": 0}, "shard_size must be at least 1"),
        ({"size": 36}, "size must be a multiple of 8.* got 36"),
        ({"size": -32}, "size must be a multiple of 8.* got -32"),
        ({"noise": "other"}, "inversion or independent, got 'other'"),
        ({"dtype": "float99"}, "float99"),
        ({"device": "abacus"}, "abacus"),
        ({"guidance": 3.5}, "guidance is 3.5"),
        ({"model": "nowhere.safetensors"}, "nowhere.safetensors does not exist"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_pairs(str(tmp_path / "pairs"), **{**SMALL, **change})
    assert not list(tmp_path.iterdir())


# ---- photos ---------------------------------------------------------------------------------------------------------


def paired_photos(photos, folder, **changes):
    """Pair the four photos; returns the first shard and what is said of it."""
    made = make_pairs(str(folder), **{**SMALL, "images": str(photos), "shard_size": 8, **changes})
    return load_file(folder / "pairs-00000.safetensors"), made


def test_an_inverted_photo_comes_back_the_closer_the_more_steps(photos, tmp_path, capsys, teacher, pixel):
    errors = []
    for steps in (32, 64):  # below about 30 steps the teacher's field is too stiff for Euler backwards
        shard, made = paired_photos(photos, tmp_path / str(steps), steps=steps)
        assert len(shard["latents"]) == 4  # one for each photo, though six were asked for
        back = euler_by_hand(teacher, shard["noise"], steps)
        errors.append(float((back - shard["latents"]).square().mean(dim=(1, 2, 3)).sqrt().mean()))
        assert float(made.round_trip.mean()) == pytest.approx(errors[-1], abs=1e-3)
        tell_pairs(made)
        assert ("more steps" in capsys.readouterr().out) == (steps == 32)
        assert not shard["noise"].equal(shard["latents"])
        torch.testing.assert_close(pixel.encode(shard["images"] / 255), shard["latents"], rtol=0, atol=2.5 / 255)
    print(f"inversion and back, rms error of the latents: {errors[0]:.3f} in 32 steps, {errors[1]:.3f} in 64")
    assert errors[1] < 0.65 * errors[0], errors  # first order: twice the steps, half the error
    assert errors[1] < 0.4, errors


def test_independent_noise_is_the_seeded_draw(photos, tmp_path):
    shard, made = paired_photos(photos, tmp_path / "pairs", noise="independent")
    assert shard["noise"].equal(torch.stack([draw_noise(4, index, (48, 8, 8)) for index in range(4)]))
    assert len(made.round_trip) == 0
    sample = TeacherPairs(tmp_path / "pairs", crop=16, seed=1)[2]
    assert sample.noise.shape == (48, 4, 4)


def test_interrupted_photo_pairs_are_finished_the_same(photos, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    paired_photos(photos, whole, shard_size=2)
    shutil.copytree(whole, resumed)
    (resumed / "pairs-00001.safetensors").unlink()
    paired_photos(photos, resumed, shard_size=2)
    assert files(resumed) == files(whole)


def rename(folder):
    (folder / "astronaut.png").rename(folder / "zoo.png")


def remove(folder):
    (folder / "coffee.png").unlink()


def add(folder):
    save_gray(folder / "blank.png", 32)


def change(folder):
    save_gray(folder / "coffee.png", 32)


def damage(folder):
    whole = (folder / "coffee.png").read_bytes()
    (folder / "coffee.png").write_bytes(whole[: len(whole) // 2])


def copy_one(folder):
    shutil.copy(folder / "coffee.png", folder / "coffee2.png")


def save_gray(path, side):
    Image.new("RGB", (side, side), (99, 99, 99)).save(path)


@pytest.mark.parametrize(
    ("happens", "made", "num", "left_out"),
    [
        (rename, 0, 4, None),
        (remove, 0, 3, None),
        (add, 1, 5, None),
        (change, 1, 4, None),
        (damage, 0, 3, "coffee.png"),
        (copy_one, 0, 4, "coffee2.png"),
    ],
)
def test_photos_change_and_only_what_changed_is_made(photos, tmp_path, caplog, happens, made, num, left_out):
    folder, options = tmp_path / "photos", {"noise": "independent", "shard_size": 3, "num": 9}
    shutil.copytree(photos, folder)
    paired_photos(folder, tmp_path / "pairs", **options)
    before = files(tmp_path / "pairs")
    happens(folder)
    result = paired_photos(folder, tmp_path / "pairs", **options)[1]
    assert (result.num, result.num - result.done_before) == (num, made)
    assert len(caplog.messages) == bool(left_out) and all(left_out in line for line in caplog.messages)
    after = files(tmp_path / "pairs")
    assert after["pairs-00000.safetensors"] == before["pairs-00000.safetensors"]
    assert (after["pairs-00001.safetensors"] == before["pairs-00001.safetensors"]) == (not made)
    good = [path for path in sorted(folder.iterdir()) if path.name != left_out]
    pairs = TeacherPairs(tmp_path / "pairs")
    for index, path in enumerate(good):
        wanted = middle_square(read_image(path), 32)
        torch.testing.assert_close(pairs[index].hr_image, wanted, rtol=0, atol=0.51 / 255)


def test_photos_that_can_not_be_used(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    paired_photos(folder, tmp_path / "pairs", noise="independent")
    before = files(tmp_path / "pairs")
    with pytest.raises(ValueError, match="source is"):
        paired_photos(folder, tmp_path / "pairs", noise="inversion")
    save_gray(folder / "small.png", 31)
    with pytest.raises(ValueError, match=r"small\.png \(31x31\)"):
        paired_photos(folder, tmp_path / "pairs", noise="independent")
    assert files(tmp_path / "pairs") == before
    paired_photos(folder, tmp_path / "pairs", noise="independent", num=4)  # and nobody looks at the fifth
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of the 5 photos"):
        paired_photos(folder, tmp_path / "pairs", noise="independent")


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*empty"):
        make_pairs(str(tmp_path / "pairs"), **SMALL, images=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"nowhere doesn't exist"):
        make_pairs(str(tmp_path / "pairs"), **SMALL, images=str(tmp_path / "nowhere"))
    assert not (tmp_path / "pairs").exists()


# ---- a FLUX.1-dev of one's own ---------------------------------------------------------------------------------------

LOCAL = {"num": 3, "steps": 2, "batch_size": 2, "shard_size": 2, "size": 16, "guidance": 3.5}


def test_a_local_pipeline_with_prompt_and_guidance(pipeline, tmp_path):
    prompt = str(pipeline / "prompt.safetensors")
    folder = make_pairs(str(tmp_path / "pairs"), model=str(pipeline), prompt=prompt, **LOCAL).folder
    opened = PairStore.open(folder)
    assert opened.latent_shape == (4, 8, 8)
    fingerprint = opened.fingerprint
    assert (fingerprint["prompt"], fingerprint["guidance"]) == ("a photo", 3.5)
    assert fingerprint["autoencoder"]["scale"] == 0.3611
    shift = resolution_shift(16)
    assert fingerprint["shift"] == shift

    backbone = load_flux(str(pipeline), trainable="none", prompt=prompt, guidance=3.5)
    noise = torch.stack([opened.noise(index) for index in range(3)])
    with torch.no_grad():
        latents = euler(backbone, noise, 1.0, 0.0, 2, shift=shift)
        images = load_autoencoder(str(pipeline)).decode(latents).clamp(0, 1)
    pairs = TeacherPairs(folder)
    for index in range(3):
        sample = pairs[index]
        torch.testing.assert_close(sample.hr_latents, latents[index], rtol=0, atol=1e-5)
        torch.testing.assert_close(sample.hr_image, images[index], rtol=0, atol=0.51 / 255)
        assert sample.noise.equal(noise[index])


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize(
    ("family", "config"),
    [
        (FLUX1, {"shift": 3.0, "use_dynamic_shifting": True}),
        (FLUX1, {"shift": 1.0, "use_dynamic_shifting": False}),
        (FLUX1, {"shift": 3.0, "use_dynamic_shifting": False}),
        (FLUX2, {"shift": 3.0, "use_dynamic_shifting": True}),
    ],
)
def test_the_sampling_grid_is_that_of_the_models_own_scheduler(tmp_path, family, config, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.save_pretrained(tmp_path / "scheduler")
    (tmp_path / "transformer").mkdir()
    tokens = 1024
    if family is FLUX1:
        mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    else:
        mu = compute_empirical_mu(tokens, steps)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu if config["use_dynamic_shifting"] else None)
    shift = family.shift(tokens, steps, ModelSource(tmp_path).scheduler)
    assert time_grid(1.0, 0.0, steps, shift=shift) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)


def test_pairs_are_sampled_on_that_grid(pipeline, tmp_path):
    model = shutil.copytree(pipeline, tmp_path / "model")
    options = {**LOCAL, "num": 1, "batch_size": 1, "model": str(model)}

    def shift(name, **changes):
        return PairStore.open(make_pairs(str(tmp_path / name), **options, **changes).folder).fingerprint["shift"]

    assert shift("without") == resolution_shift(16)
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(model / "scheduler")
    assert shift("schnell") == 1.0 and shift("explicit", shift=2.0) == 2.0


def test_an_undistilled_flux2_is_sampled_with_classifier_free_guidance(pipeline2, tmp_path):
    options = {**LOCAL, "guidance": None, "model": str(pipeline2), "prompt": str(pipeline2 / "prompt.safetensors")}
    folder = make_pairs(str(tmp_path / "pairs"), cfg=4.0, **options).folder
    opened = PairStore.open(folder)
    shift = FLUX2.shift(16, 2)
    assert opened.fingerprint["shift"] == shift and opened.fingerprint["cfg"] == 4.0
    assert opened.fingerprint["autoencoder"] == load_autoencoder(str(pipeline2)).fingerprint()

    backbone = load_flux(str(pipeline2), trainable="none", prompt=options["prompt"])
    noise = torch.stack([opened.noise(index) for index in range(3)])
    with torch.no_grad():
        latents = euler(backbone.guided(4.0), noise, 1.0, 0.0, 2, shift=shift)
    for index in range(3):
        torch.testing.assert_close(TeacherPairs(folder)[index].hr_latents, latents[index], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"cfg"):
        make_pairs(str(tmp_path / "pairs"), cfg=3.0, **options)
    with pytest.raises(ValueError, match="needs a negative prompt"):
        make_pairs(str(tmp_path / "others"), cfg=4.0, **{**options, "prompt": None})


def test_another_prompt_or_guidance_is_refused(pipeline, tmp_path):
    prompt = str(pipeline / "prompt.safetensors")
    options = {"output": str(tmp_path / "pairs"), "model": str(pipeline), **LOCAL}
    make_pairs(**options, prompt=prompt)
    with pytest.raises(ValueError, match=r"guidance is 3\.5 there, 2\.0 here"):
        make_pairs(**{**options, "guidance": 2.0}, prompt=prompt)
    with pytest.raises(ValueError, match="prompt_digest is"):
        make_pairs(**options)
    # The same words encoded otherwise are another prompt.
    longer = PromptEmbedding(tiny_prompt(5).prompt_embeds, tiny_prompt().pooled_prompt_embeds, "a photo")
    longer.save(tmp_path / "longer.safetensors")
    with pytest.raises(ValueError, match="prompt"):
        make_pairs(**options, prompt=str(tmp_path / "longer.safetensors"))


def test_the_teachers_digest_is_of_bytes_and_the_same_with_any_threads():
    class Large(torch.nn.Module):
        def __init__(self, change=0.0):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            weight = torch.randn(300, 400, generator=generator)
            self.weight = torch.nn.Parameter((weight + change).bfloat16())
            self.small = torch.nn.Parameter(weight[0])

    digests = set()
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        digests.add(weights_digest(Large()))
    torch.set_num_threads(threads)
    assert len(digests) == 1 and weights_digest(Large(0.1)) not in digests


# ---- the photos ------------------------------------------------------------------------------------------------


def test_the_middle_square_is_cut_and_resized(generator):
    image = torch.rand(3, 8, 12, generator=generator)
    assert middle_square(image, 8).equal(image[:, :, 2:10])
    small = middle_square(torch.full((3, 20, 10), 0.25), 5)
    torch.testing.assert_close(small, torch.full((3, 5, 5), 0.25))


class Two:
    """One of two processes, as threads."""

    def __init__(self, rank, values, barrier):
        self.rank, self.first, self.values, self.barrier = rank, rank == 0, values, barrier

    def share(self, items):
        return list(items[self.rank :: 2])

    def gather(self, value):
        self.values[self.rank] = value
        self.barrier.wait(20)
        found = list(self.values)
        self.barrier.wait(20)
        return found


@pytest.mark.parametrize("num", [1, 4, 5, 99])
def test_the_first_good_photos_are_found_by_one_process_or_two(tmp_path, num):
    for index in range(8):
        pixels = np.random.default_rng(4 if index == 5 else index).integers(0, 256, (9, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")  # 5 is a copy of 4
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:120])
    found = find_photos(tmp_path, num, 8, (), ALONE)
    assert [path.stem for path in found.values()] == [*"023467"][:num]
    values, barrier, results = [None, None], threading.Barrier(2), {}

    def work(rank):
        results[rank] = find_photos(tmp_path, num, 8, (), Two(rank, values, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(results[0].items()) == list(results[1].items()) == list(found.items())


def test_photos_that_are_known_are_not_decoded_again(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    known = find_photos(tmp_path, 1, 8, ())
    monkeypatch.setattr("fluxsr.training.pair_maker.read_pixels", None)
    assert find_photos(tmp_path, 1, 8, known) == known
