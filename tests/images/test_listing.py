import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.images import list_images, read_image, read_size, write_image
from fluxsr.images.listing import survey


def test_folders_are_listed_in_order(tmp_path, save_photo, photo_like) -> None:
    image = photo_like(4, 4)
    for name in ("b.PNG", "a.jpg", "sub/c.webp", "sub/.hidden/x.png", ".tmp-1-y.png", "z.bmp", "d.tiff"):
        save_photo(tmp_path / name, image)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a.jpg", "b.PNG", "d.tiff", "sub/c.webp", "z.bmp"]


def test_bad_folders(tmp_path) -> None:
    with pytest.raises(ValueError, match="nowhere doesn't exist"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no images in .*\.png, \.jpg"):
        list_images(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        list_images(tmp_path / "file")


def test_values_outside_are_clamped_and_bad_tensors_refused(tmp_path) -> None:
    write_image(tmp_path / "a.png", torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1))
    assert (read_image(tmp_path / "a.png").flatten() * 255).round().tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match=r"must be \(3, H, W\), got \(1, 4, 4\)"):
        write_image(tmp_path / "b.png", torch.rand(1, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        write_image(tmp_path / "b.png", torch.full((3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match=r"must end in one of \.png"):
        write_image(tmp_path / "b.gif", torch.rand(3, 4, 4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_other_modes(tmp_path) -> None:
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    torch.testing.assert_close(read_image(tmp_path / "palette.png")[:, 0, 0], torch.tensor([200 / 255, 0, 0]))
    Image.fromarray(red[..., 0]).save(tmp_path / "gray.png")
    assert torch.equal(read_image(tmp_path / "gray.png"), torch.full((3, 4, 6), 200 / 255))
    Image.fromarray(red[..., 0] > 0).save(tmp_path / "bits.png")
    assert torch.equal(read_image(tmp_path / "bits.png"), torch.ones(3, 4, 6))
    Image.fromarray(red).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").shape == (3, 4, 6)


def test_transparency_is_laid_on_white(tmp_path) -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, :, 3] = 255
    pixels[1, 1] = (0, 0, 0, 127)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    image = read_image(tmp_path / "rgba.png")
    assert image[:, 0].max() == 0
    assert image[:, 1, 0].tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(image[:, 1, 1], torch.full((3,), 128 / 255))
    Image.fromarray(pixels[..., ::3].copy(), "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[:, 1, 0].tolist() == [1.0, 1.0, 1.0]


def test_real_photos_with_transparency(assets) -> None:
    paths = list_images(assets / "bench" / "RealSet65")
    assert len(paths) == 65
    for path in paths[:6]:
        image = read_image(path)
        assert tuple(image.shape[1:]) == read_size(path)
        assert 0 <= float(image.min()) < float(image.max()) <= 1


def test_links_to_folders_are_followed_and_circles_noticed(tmp_path):
    for name in ("set/a.png", "real/b.png", "real/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "set/more").symlink_to(tmp_path / "real")
    (tmp_path / "real/deep/up").symlink_to(tmp_path / "real")
    (tmp_path / "set/again").symlink_to(tmp_path / "set")
    found = survey(tmp_path / "set")
    assert [path.relative_to(tmp_path).as_posix() for path in found.images] == [
        "set/a.png",
        "set/more/b.png",
        "set/more/deep/c.png",
    ]
    assert [line.split(" ")[0] for line in found.left_out] == ["again", "more/deep/up"]
    assert list_images(tmp_path / "set") == found.images
