"""Many files from Python: one outcome for every input, and its progress in pixels."""

from __future__ import annotations

import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.inference import batch, upscale_files
from fluxsr.inference.batch import overlapped, upscale_one
from fluxsr.inference.jobs import Job, plan_files
from fluxsr.inference.settings import Settings, Sizes


class Doubling:
    """Has the one method of an upscaler that a batch calls."""

    scale = 4.0
    device = torch.device("cpu")

    def upscale_pixels(self, pixels, size, progress=None, **options):
        if progress is not None:
            progress(1, 1)
        return np.kron(pixels, np.ones((size[0] // len(pixels), size[1] // pixels.shape[1], 1), pixels.dtype))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def test_every_input_has_an_outcome_and_the_good_ones_are_written(folder):
    told = []
    outcomes = list(
        upscale_files(
            [str(folder), "missing.png"],
            str(folder / "out"),
            scale=2,
            load=Doubling,
            progress=lambda *one: told.append(one),
        )
    )
    done = [outcome for outcome in outcomes if not outcome.error]
    assert {outcome.target for outcome in done} == {folder / "out" / "a.png", folder / "out" / "b.png"}
    assert all(outcome.size == (6, 10) and Image.open(outcome.target).size == (10, 6) for outcome in done)
    errors = [outcome for outcome in outcomes if outcome.error]
    assert len(errors) == 2 and all(outcome.target is None for outcome in errors)
    assert "missing.png" in errors[1].error and "broken.png" in errors[0].error
    assert told == [
        (pytest.approx(6e-5), pytest.approx(12e-5), "1/4 a.png"),
        (pytest.approx(12e-5), pytest.approx(12e-5), "2/4 b.png"),
    ]


def test_no_model_is_loaded_where_there_is_no_work(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a.png").touch()
    load = lambda: pytest.fail("a model was loaded")
    inputs, out = [str(folder / "a.png")], str(folder / "out")
    assert list(upscale_files(inputs, out, skip_existing=True, load=load)) == []
    (outcome,) = upscale_files(inputs, out, load=load)
    assert str(folder / "out" / "a.png") in outcome.error
    with pytest.raises(ValueError, match="2 images"):
        list(upscale_files([*inputs, str(folder / "b.png")], str(folder / "one.png"), load=load))


def test_one_output_for_two_inputs_is_a_problem_of_the_second(tmp_path):
    jobs, problems, _ = plan_files([str(tmp_path / "x" / "a.png"), str(tmp_path / "y" / "a.png")], tmp_path / "out")
    assert jobs == [Job(tmp_path / "x" / "a.png", tmp_path / "out" / "a.png")]
    assert len(problems) == 1


def test_a_result_beyond_the_limit_is_an_error_and_no_file(folder):
    outcome = upscale_one(Doubling(), Job(folder / "a.png", folder / "large.png"), Settings(Sizes(4), max_pixels=100))
    assert "20x12" in outcome.error and not (folder / "large.png").exists()


class OnDevice(Doubling):
    """As if it worked on a GPU, so that files are read and written beside it."""

    device = torch.device("cuda")


def test_beside_a_device_the_results_and_the_order_are_the_same(folder):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(folder / "c.tif")
    (folder / "damaged.tif").write_bytes(b"II*\0" + bytes(20))
    reported, told = [], []
    for name, load in (("one", Doubling), ("two", OnDevice)):
        reported.append([])
        outcomes = upscale_files(
            [str(folder / one) for one in ("a.png", "broken.png", "c.tif", "damaged.tif", "b.png", "none.png")],
            str(folder / name), scale=2, load=load, progress=lambda *one: reported[-1].append(one),
        )  # fmt: skip
        told.append([(one.target and one.target.name, one.size, one.error) for one in outcomes])
    assert told[0] == told[1] and reported[0] == reported[1] != []
    assert [bool(error) for _, _, error in told[0]] == [False, True, False, True, False, True]
    for path in (folder / "one").iterdir():
        assert path.read_bytes() == (folder / "two" / path.name).read_bytes()
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


class Asked(Sizes):
    """Sizes that say when the second file has been read."""

    second = threading.Event()
    count = 0

    def of(self, height, width):
        Asked.count += 1
        if Asked.count == 2:
            self.second.set()
        return 2 * height, 2 * width


def test_the_next_is_read_and_the_last_written_while_the_device_works(folder):
    class Waiting(OnDevice):
        count = 0

        def upscale_pixels(self, pixels, size, **options):
            self.count += 1
            assert Asked.second.wait(20)  # while this is the first
            written = folder / "out" / f"{self.count - 1}.png"
            for _ in range(200):
                if self.count == 1 or written.exists():
                    return super().upscale_pixels(pixels, size, **options)
                threading.Event().wait(0.1)
            raise AssertionError(f"{written} was not written beside")

    (folder / "out").mkdir()
    jobs = [Job(folder / name, folder / "out" / f"{i}.png") for i, name in enumerate(("a.png", "b.png"), 1)]
    outcomes = list(overlapped(Waiting(), jobs, Settings(Asked()), [None, None]))
    assert [one.error for one in outcomes] == ["", ""]


def test_two_files_are_never_read_at_a_time(folder, monkeypatch):
    """Readers set Pillow's limits for the whole process, and take them back."""
    busy, real = threading.Lock(), batch.read

    def read(*arguments, **options):
        assert busy.acquire(blocking=False)
        try:
            time.sleep(0.05)
            return real(*arguments, **options)
        finally:
            busy.release()

    monkeypatch.setattr(batch, "read", read)
    for name in ("c.tif", "d.png", "e.tif"):
        Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(folder / name)
    inputs = [str(folder / name) for name in ("c.tif", "a.png", "e.tif", "b.png", "d.png")]
    outcomes = list(upscale_files(inputs, str(folder / "out"), scale=2, load=OnDevice))
    assert [one.error for one in outcomes] == [""] * 5


def test_an_interruption_loses_no_line_of_what_is_written(folder):
    class Interrupted(OnDevice):
        count = 0

        def upscale_pixels(self, pixels, size, **options):
            self.count += 1
            if self.count == 2:
                raise KeyboardInterrupt
            return super().upscale_pixels(pixels, size, **options)

    outcomes = upscale_files(
        [str(folder / "a.png"), str(folder / "b.png")], str(folder / "out"), scale=2, load=Interrupted
    )
    assert next(outcomes).target == folder / "out" / "a.png"
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert [path.name for path in (folder / "out").iterdir()] == ["a.png"]


class Wide(Doubling):
    """Takes what is told on the way."""

    def upscale_pixels(self, pixels, size, progress=None, **options):
        return np.zeros((*size, pixels.shape[2]), pixels.dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"longest": 5, "size": (3, 3)},
        {"width": 5, "height": 5},
        {"longest": 0},
        {"strength": 2.5},
        {"quality": 0},
        {"quality": 101},
        {"quality": 90, "format": "png"},
        {"quality": 90},  # the only photo is a PNG, and its result is one
        {"skip_existing": True, "overwrite": True},
    ],
)
def test_options_that_can_not_be_are_known_before_the_model_is_loaded(folder, options) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        list(
            upscale_files(
                [str(folder / "a.png")], str(folder / "out"), **options, load=lambda: pytest.fail("a model was loaded")
            )
        )
    assert not (folder / "out").exists()


def test_quality_reaches_the_file(folder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / "n.png")
    lengths = []
    for quality in (20, 95):
        outcomes = upscale_files(
            [str(folder / "n.png")], str(folder / f"{quality}.jpg"), 1, quality=quality, load=Doubling
        )
        lengths.append(next(outcomes).target.stat().st_size)
    assert lengths[0] * 2 < lengths[1]


def test_colors_that_the_result_can_not_say_are_known_before_the_work(folder) -> None:
    from fluxsr.images import Picture, write_picture

    write_picture(folder / "hdr.png", Picture(np.zeros((4, 4, 3), np.uint8), cicp=bytes([9, 16, 0, 1])))

    class Never(Doubling):
        def upscale_pixels(self, pixels, **options):
            pytest.fail("it was upscaled")

    (outcome,) = upscale_files([str(folder / "hdr.png")], str(folder / "out.jpg"), load=Never)
    assert "HDR" in outcome.error


@pytest.mark.parametrize("beside", [False, True], ids=["one by one", "overlapped"])
def test_memory_is_flat_over_200_pictures(folder, beside) -> None:
    source = folder / "many"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    for number in range(200):
        Image.fromarray(noise).save(source / f"{number}.png", compress_level=1)
    held = []
    tracemalloc.start()
    kind = type("Kind", (Wide,), {"device": torch.device("cuda" if beside else "cpu")})
    for outcome in upscale_files([str(source)], str(folder / "out"), 1, load=kind):
        assert not outcome.error
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] - held[20] < noise.nbytes  # not even one picture more
