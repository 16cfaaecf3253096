import pytest
import torch

from fluxsr.evaluation import open_folders
from fluxsr.evaluation.testset import bicubic_degradation
from fluxsr.images import read_image
from tests.evaluation.conftest import save


def test_hr_and_lr_are_paired_and_the_scale_is_found(testset, folders):
    assert testset.scale == 4 and testset.lr == "files" and testset.how == "same names"
    assert list(testset.items) == ["a.png", "b.png", "c.png"] and testset.items["b.png"].size == (48, 40)
    torch.testing.assert_close(testset.lr_image("b.png")[0], read_image(folders / "LR" / "b.png"))


def test_hr_is_cut_to_a_multiple_of_the_scale(tmp_path):
    save(tmp_path / "HR" / "a.png", (39, 30))
    save(tmp_path / "LR" / "a.png", (9, 7))
    opened = open_folders(tmp_path / "HR", tmp_path / "LR")
    assert opened.items["a.png"].size == (28, 36) and opened.hr_image("a.png").shape == (1, 3, 28, 36)
    with pytest.raises(ValueError, match=r"LR, at x3: 1 of 1 .* a.png \(9x7 instead of 13x10\)"):
        open_folders(tmp_path / "HR", tmp_path / "LR", scale=3)


def test_lr_images_are_made_where_there_are_none(folders):
    opened = open_folders(folders / "HR", scale=4, degrade=bicubic_degradation(4), lr_name="bicubic")
    assert opened.lr == "bicubic"
    # The folder's own were written in the same way.
    torch.testing.assert_close(opened.lr_image("a.png")[0], read_image(folders / "LR" / "a.png"))


def test_the_degradation_gets_the_images_number(folders):
    opened = open_folders(folders / "HR", degrade=lambda image, number: image + number)
    assert opened.lr_image("c.png").sub(opened.hr_image("c.png")).mean() == pytest.approx(2)


def test_without_hr_there_is_no_reference(folders):
    opened = open_folders(None, folders / "LR")
    assert not opened.has_reference and opened.hr_image("a.png") is None
    assert opened.items["a.png"].size == (48, 40)


def test_nothing_to_measure_on():
    with pytest.raises(ValueError, match="nothing to measure on"):
        open_folders(None)
