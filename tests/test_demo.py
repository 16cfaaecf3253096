from __future__ import annotations

import json
import re
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from fluxsr.data import BicubicDegradation, RealESRGANDegradation
from fluxsr.demo import PHOTOS, PICTURES, demo_pairs, held_out_photo, old_phone, run_demo, save_pictures, train
from fluxsr.evaluation.report import Stage
from fluxsr.images import read_image
from fluxsr.losses import L1Loss
from fluxsr.models import load_flux


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The whole demo, tiny: its folder, the report and what the terminal showed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with torch.random.fork_rng(), contextlib.redirect_stdout(printed):
        run_demo(output=str(folder), minutes=20, num_pairs=8, steps=2)
    return folder, (folder / "report.html").read_text("utf-8"), printed.getvalue()


def test_the_report_is_the_reports_own_and_needs_nothing_but_itself(demo):
    _, report, _ = demo
    sources = re.findall(r"src=['\"]?([^'\" >]{1,30})", report)
    # The whole picture, and the crops of HR and three systems, of each photo.
    assert len(sources) == 5 * len(PHOTOS)
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<(link|iframe|object)\b|@import|url\(|href=", report)
    assert report.count('class="compare"') == len(PHOTOS)


def test_the_report_names_every_photo_stage_and_system(demo):
    _, report, _ = demo
    assert all(f"{name}.png" in report for name in PHOTOS)
    for text in ("teacher pairs", "training", "upscaling", "total", "bicubic", "demo LoRA", "shipped student"):
        assert f">{text}<" in report, text
    assert "2 steps" in report and "time budget" not in report
    assert "What is a toy here" in report and "never trained on" in report


def test_the_report_shows_a_curve_for_every_term(demo):
    _, report, _ = demo
    titles = set(re.findall(r'aria-label="train/(\w+) against step"', report))
    assert titles >= {"loss", "flow", "l1", "tv_lpips", "periodicity", "adl"}


def test_the_terminal_and_the_file_have_the_same_numbers(demo):
    folder, report, printed = demo
    results = json.loads((folder / "results.json").read_text())
    assert set(results["systems"]) == {"bicubic", "demo LoRA", "shipped student"}
    for entry in results["systems"].values():
        assert len(entry["images"]) == len(PHOTOS)
        assert f"{entry['mean']['psnr']:.2f}" in report and f"{entry['mean']['psnr']:.2f}" in printed
    assert "report: file://" in printed


def test_the_adapter_can_be_loaded(demo):
    folder, _, _ = demo
    backbone = load_flux("nano-student", lora_weights=str(folder / "lora.safetensors"))
    trained = load_file(folder / "lora.safetensors")
    assert any(tensor.abs().max() > 0 for name, tensor in trained.items() if "lora_B" in name)
    assert backbone.default_role == "student"


def test_a_short_budget_makes_less_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("fluxsr.demo.PHOTOS", ("rocket",))
    with torch.random.fork_rng():
        run_demo(output=str(tmp_path), minutes=0.05, num_pairs=512, steps=100_000)
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "pairs instead of 512" in report
    assert "steps instead of 100000: time budget" in report


def test_a_longer_budget_makes_more(tmp_path, monkeypatch):
    asked = []

    def train_nothing(folder, pairs, steps, *_):
        asked.append(steps)
        raise KeyboardInterrupt

    monkeypatch.setattr("fluxsr.demo.demo_pairs", lambda folder, num, *_: asked.append(num) or folder)
    monkeypatch.setattr("fluxsr.demo.train", train_nothing)
    for minutes in (5, 60):
        with pytest.raises(KeyboardInterrupt), torch.random.fork_rng():
            run_demo(output=str(tmp_path), minutes=minutes)
    pairs, steps, more_pairs, more_steps = asked
    assert more_pairs == 12 * pairs and more_steps == 12 * steps


class Failing(L1Loss):
    """A loss that fails in the second step, when the bar is shown."""

    calls = 0

    def forward(self, *images, **options):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("diverged")
        return super().forward(*images, **options)


def bars() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if type(thread).__name__ == "_RefreshThread"]


def test_no_bar_stays_when_the_training_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("fluxsr.demo.L1Loss", Failing)
    before = bars()
    with torch.random.fork_rng():
        pairs = demo_pairs(tmp_path, 8, 0, 600, Stage("pairs"))
        with pytest.raises(RuntimeError, match="diverged"):
            train(tmp_path, pairs, 3, 0, 600, Stage("training"))
    deadline = time.monotonic() + 10  # a bar's thread is told to end, and ends a moment later
    while bars() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bars() == before


@pytest.mark.parametrize("name", PHOTOS)
def test_held_out_photos_are_there_without_a_network(name):
    image = held_out_photo(name)
    assert image.shape == (3, 256, 256)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < 0.2 < 0.6 < image.max() <= 1
    assert image.std() > 0.05


def test_no_picture_to_train_on_is_a_photo_to_measure_on(tmp_path):
    pictures = {path.stem: read_image(path) for path in save_pictures(tmp_path).iterdir()}
    assert set(pictures) == set(PICTURES) and not set(PICTURES) & set(PHOTOS)
    assert all(min(image.shape[-2:]) >= 128 for image in pictures.values())


def test_an_old_phone_is_worse_than_none_and_better_than_the_papers_damage():
    image = held_out_photo("chelsea")[None].expand(6, -1, -1, -1)
    clean = BicubicDegradation()(image, seeds=list(range(6)))
    errors = [
        float((one(image, seeds=list(range(6))) - clean).square().mean())
        for one in (old_phone(), RealESRGANDegradation())
    ]
    assert 1e-4 < errors[0] < errors[1] / 2


@pytest.mark.parametrize("change", [{"minutes": 0}, {"minutes": float("inf")}, {"num_pairs": 7}, {"steps": 0}])
def test_settings_that_make_no_sense_are_refused(change, tmp_path):
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=f"{name} must be at least .* got {value}"):
        run_demo(output=str(tmp_path / "demo"), **change)
    assert not (tmp_path / "demo").exists()
