import time

import pytest

from fluxsr.images import check_sizes, images_by_name, match_names
from fluxsr.images.matching import core
from tests.evaluation.conftest import save


def folder(place, *names):
    for name in names:
        save(place / name)
    return place


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("img_001_SRF_4_HR.png", "img_001"),
        ("Canon_001_LR4.png", "Canon_001"),
        ("0801x4.png", "0801"),
        ("0801.png", "0801"),
        ("baby_x4_out.jpg", "baby"),
        ("sub/fox_SR.png", "sub/fox"),
        ("HR.png", "HR"),
        ("chair.png", "chair"),
        ("photo.v2", "photo.v2"),
        ("a.b.png", "a.b"),
    ],
)
def test_what_is_left_of_a_name(name, expected):
    assert core(name) == expected


def test_the_same_names_in_another_format_match(tmp_path):
    place = folder(tmp_path, "b.jpg", "sub/a.png")
    found = match_names(["sub/a.bmp", "b.png"], place, "ours")
    assert found.how == "same names"
    assert found.files == {"sub/a.bmp": place / "sub/a.png", "b.png": place / "b.jpg"}


def test_endings_are_left_off_where_that_is_unambiguous(tmp_path):
    place = folder(tmp_path, "1_LR4.png", "2_LR4.png")
    found = match_names(["1_HR.png", "2_HR.png"], place, "ours")
    assert found.how == "names without their endings" and found.files["2_HR.png"].name == "2_LR4.png"
    folder(tmp_path, "2_x4.png")
    with pytest.raises(ValueError, match=r"ambiguous: 2_LR4.png, 2_x4.png"):
        match_names(["1_HR.png", "2_HR.png"], place, "ours")


def test_missing_extra_and_renamed_images_are_named(tmp_path):
    place = folder(tmp_path, "a.png", "c.png", "renamed.png")
    with pytest.raises(
        ValueError, match=r"ours: .* 3 images that belong to the others; missing: b.png; extra: renamed.png"
    ):
        match_names(["a.png", "b.png", "c.png"], place, "ours")
    with pytest.raises(ValueError, match=r"missing: 0.png, .*, 7.png and 4 more"):
        match_names([f"{number}.png" for number in range(12)], place, "ours")


def test_two_formats_of_one_image_are_not_chosen_from(tmp_path):
    with pytest.raises(ValueError, match=r"ambiguous: a.jpg, a.png"):
        match_names(["a.png"], folder(tmp_path, "a.png", "a.jpg"), "ours")


def test_a_pattern_takes_a_part_of_a_folder(tmp_path):
    folder(tmp_path, "1_HR.png", "1_LR.png", "2_HR.png", "2_LR.png")
    (tmp_path / "3_HR.txt").write_text("no image")
    assert list(images_by_name(f"{tmp_path}/*_HR.*")) == ["1_HR.png", "2_HR.png"]
    with pytest.raises(ValueError, match="no image fits the pattern"):
        images_by_name(f"{tmp_path}/*_SR.png")


def test_other_sizes_are_named(tmp_path):
    save(tmp_path / "a.png", (8, 6))
    check_sizes({"a.png": tmp_path / "a.png"}, {"a.png": (6, 8)}, "ours")
    with pytest.raises(ValueError, match=r"ours: 1 of 1 images have another size: a.png \(8x6 instead of 6x8\)"):
        check_sizes({"a.png": tmp_path / "a.png"}, {"a.png": (8, 6)}, "ours")


@pytest.mark.parametrize("there", ["Ju\u0308rgen.png", "Ju\u0308rgen_x4.jpg"])
def test_letters_of_two_signs_are_letters_of_one(tmp_path, there):
    """macOS composes names otherwise than Linux and Windows do; both look the same."""
    place = folder(tmp_path, there)
    assert match_names(["J\u00fcrgen.png"], place, "ours").files == {"J\u00fcrgen.png": place / there}


def test_equal_stems_are_told_apart_by_their_formats(tmp_path):
    place = folder(tmp_path, "a.png", "a.jpg", "b.png")
    found = match_names(["b.png", "a.jpg", "a.png"], place, "ours")
    assert found.files == {name: place / name for name in ("a.jpg", "a.png", "b.png")}


def test_a_format_may_have_been_added(tmp_path):
    place = folder(tmp_path, "a.png.png", "a.jpg.png", "sub/b.png.png")
    found = match_names(["a.jpg", "a.png", "sub/b.png"], place, "ours")
    assert found.files["a.jpg"] == place / "a.jpg.png" and found.files["sub/b.png"] == place / "sub" / "b.png.png"


def test_messages_of_thousands_of_names_take_no_time(monkeypatch):
    names = [f"{number:05}_HR_x4_out.png" for number in range(30_000)]
    files = {f"{number:05}_LR4.png": None for number in range(15_000, 45_000)}
    monkeypatch.setattr("fluxsr.images.matching.images_by_name", lambda place: files)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"missing: 00000_HR_x4_out.png, .* and 14992 more; extra: 30000_LR4.png"):
        match_names(names, "somewhere", "ours")
    assert time.process_time() - start < 10  # a comparison of all with all would take minutes
