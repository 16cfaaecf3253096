from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.app import server
from fluxsr.cli import app, upscale
from fluxsr.cli.main import main
from fluxsr.inference import Upscaler
from fluxsr.models import PixelAutoencoder
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import StudentRecord


@pytest.fixture
def page():
    pytest.importorskip("gradio", reason="the page needs the extra app")
    from fluxsr.app import upscale_page as page

    return page


@pytest.fixture
def still():
    """An upscaler that changes nothing: what it gives is the bicubic enlargement."""
    return Upscaler(
        lambda xt, t: torch.zeros_like(xt), PixelAutoencoder(downsample=2), 0.25, window=16, color_fix="none"
    )


def photo(width=10, height=7, mode="RGB"):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    channels = {"L": 1, "LA": 2, "RGBA": 4}.get(mode, 3)
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels).convert(mode)


def truncated():
    photo(60, 40).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()[:2000]


def bomb(side=100_000):
    """A PNG of a few bytes whose header promises ten gigapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    checked = header + struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + checked + struct.pack(">I4s", 0, b"IDAT") + b"\x35\xaf\x06\x1e"
    )


BAD_FILES = {
    "text": (b"not an image", "it is no picture of a known format"),
    "truncated": (truncated(), "can't read"),
    "empty": (b"", "is empty (0 bytes)"),
    "bomb": (bomb(), "has 100000x100000 pixels, 10000.0 million: more than the limit of 1"),
}


def test_the_download_is_what_the_upscaler_gives(page, tmp_path):
    upscaler = Upscaler.from_pretrained(device="cpu")
    seen = []
    photo(20, 12).save(tmp_path / "a.png")
    result = page.upscale_upload(
        upscaler, tmp_path / "a.png", 3, 2, tmp_path / "out", 10**6, lambda done, total: seen.append((done, total))
    )
    expected = upscaler(photo(20, 12), scale=3, steps=2)
    np.testing.assert_array_equal(np.asarray(Image.open(result.download)), np.asarray(expected))
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] > 0
    assert not np.array_equal(np.asarray(Image.open(result.before)), np.asarray(expected))


def test_large_results_are_shown_reduced_and_downloaded_whole(page, still, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "VIEW_PIXELS", 400)
    photo(40, 20).save(tmp_path / "a.png")
    result = page.upscale_upload(still, tmp_path / "a.png", 2, 1, tmp_path / "out", 10**6)
    assert Image.open(result.download).size == (80, 40)
    assert Image.open(result.before).size == Image.open(result.after).size == (28, 14)
    assert "became 80x40" in result.text and result.text.endswith("Shown at 28x14; the download is whole.")


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_named_without_their_folder(page, still, tmp_path, kind):
    data, text = BAD_FILES[kind]
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        page.upscale_upload(still, tmp_path / "bad.png", 2, 1, tmp_path / "out", 10**6)
    assert "bad.png" in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_too_large_a_result_names_the_scale_that_fits(page, still, tmp_path):
    photo(100, 50).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png would become 400x200.*Choose a scale of at most 1\.4,"):
        page.upscale_upload(still, tmp_path / "a.png", 4, 1, tmp_path / "out", 10_000)
    result = page.upscale_upload(still, tmp_path / "a.png", 1.4, 1, tmp_path / "out", 10_000)
    assert Image.open(result.download).size == (140, 70)


@pytest.mark.parametrize(
    ("name", "scale", "steps", "text"),
    [
        (None, 4, 1, "There is no photo"),
        ("gone.png", 4, 1, "There is no photo"),
        ("a.png", 0.5, 1, "between 1 and 8, not at 0.5"),
        ("a.png", float("nan"), 1, "between 1 and 8, not at nan"),
        ("a.png", None, 1, "between 1 and 8, not at None"),
        ("a.png", 4, 0, "from 1 to 8, not 0"),
        ("a.png", 4, 1.5, "from 1 to 8, not 1.5"),
    ],
)
def test_wrong_inputs(page, still, tmp_path, name, scale, steps, text):
    photo().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=text):
        page.upscale_upload(still, name and tmp_path / name, scale, steps, tmp_path / "out", 10**6)


def test_the_button_survives_every_error(page, still, tmp_path, monkeypatch):
    blocks = page.make_page(still, "nano-student", tmp_path / "out", 10**6)
    run = next(function.fn for function in blocks.fns.values() if function.name == "run")
    silent = lambda *arguments, **options: None
    photo().save(tmp_path / "a.png")
    shown, download, text = run(str(tmp_path / "a.png"), 2, 1, 1, silent)
    assert [Image.open(path).size for path in shown] == [(20, 14)] * 2
    assert download.visible and text.startswith('<p class="done" role="status">a.png: 10x7 became 20x14')

    def broken(self, *arguments, **options):
        raise RuntimeError("\"addmm\" not implemented for <'Half'>")

    monkeypatch.setattr(Upscaler, "upscale_pixels", broken)
    shown, download, text = run(str(tmp_path / "a.png"), 2, 1, 1, silent)
    assert shown is None and not download.visible
    assert text.startswith('<p class="problem" role="alert">') and "&lt;&#x27;Half&#x27;&gt;</p>" in text


def test_the_license_is_that_of_the_model(page, still, tmp_path):
    nano = Upscaler.from_pretrained(device="cpu")
    assert "nano-student" in (line := page.license_line("nano-student", nano)) and "commercial use allowed" in line
    still.record = StudentRecord(base="black-forest-labs/FLUX.1-dev")
    assert "not for commercial use" in page.license_line("black-forest-labs/FLUX.1-dev", still)
    shutil.copy(ModelSource("nano-student").path, file := tmp_path / "mine.safetensors")
    assert "mine.safetensors" in (line := page.license_line(str(file), nano)) and "apache-2.0" in line
    assert str(tmp_path) not in line


def test_options_are_those_of_upscale_and_loopback():
    options = app.COMMAND.parse([])
    reference = upscale.COMMAND.parse(["in", "-o", "out"])
    shared = options.keys() & reference.keys()
    assert shared >= {"model", "lora", "prompt", "guidance", "tile", "color_fix", "device", "dtype", "max_pixels"}
    assert all(options[name] == reference[name] for name in shared)
    assert options["host"] == "127.0.0.1" and options["port"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port"),
        (["--share"], "--share"),
        (["--model", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
    ],
)
def test_mistakes_in_the_options_are_one_line(page, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["app", *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit):
        main(["app"])
    assert capsys.readouterr().err == "fluxsr: error: the page needs Gradio: pip install 'fluxsr[app]'\n"


def test_what_gradio_is_told(page, monkeypatch, capsys):
    told = {}
    fake = SimpleNamespace(launch=lambda **options: told.update(options), local_url="URL", block_thread=lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    server.serve(fake, "127.0.0.1", None, 10**6)
    assert told["server_name"] == "127.0.0.1" and told["share"] is False and told["run_history"] is False
    assert told["max_file_size"] < 10**7
    assert capsys.readouterr() == ("Page at URL (Ctrl-C ends it)\n", "")
    server.serve(fake, "0.0.0.0", 80, 10**6)
    assert told["server_name"] == "0.0.0.0" and told["server_port"] == 80
    assert "everyone who reaches 0.0.0.0 can use this page" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(page, still, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        blocks = page.make_page(still, "nano-student", tmp_path, 10**6)
        with pytest.raises(OSError, match=f"can't listen at 127.0.0.1:{taken.getsockname()[1]}: the port is taken"):
            server.serve(blocks, "127.0.0.1", taken.getsockname()[1], 10**6)


@pytest.fixture
def address(page, tmp_path):
    """The page in a process of its own, which must leave nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = tmp_path / "temporary"
    place.mkdir()
    options = ["--port", str(port), "--max_pixels", "1e6", "--device", "cpu", "--tile", "128"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxsr", "app", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place), "OMP_NUM_THREADS": "1"},
    )
    watchdog = threading.Timer(200, process.kill)
    watchdog.start()
    try:
        assert process.stdout.readline() == f"Page at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(timeout=60) == 0
        assert not list(place.glob("fluxsr-app-*"))
    finally:
        process.kill()
        watchdog.cancel()


def submit(tab, path, scale):
    """Give the page a file in place of the one it has, and press the button; returns what it says."""
    remove = tab.locator("#photo").get_by_role("button", name="Clear")
    if remove.count():
        remove.click()
    tab.locator("#photo input[type=file]").set_input_files(path)
    tab.locator("#photo").get_by_text(Path(path).suffix).wait_for()
    tab.locator("#scale input[type=number]").fill(str(scale))
    tab.get_by_role("button", name="Upscale", exact=True).click()
    tab.locator("#message p").filter(has_text=Path(path).name).wait_for()
    return tab.locator("#message p")


def test_in_a_browser(address, browser, tmp_path):
    port = urlsplit(address).port
    if sys.platform == "linux":  # where a server at 0.0.0.0 would answer at every 127.x.y.z
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    tab = browser.new_page()
    tab.set_default_timeout(60_000)
    requests, crashes = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: crashes.append(str(error)))
    tab.goto(address)
    assert "apache-2.0, commercial use allowed" in tab.locator("#license").inner_text()
    download = tab.get_by_role("button", name="Download PNG")

    # Bad files one after another, and the page lives on.
    for kind, (data, text) in BAD_FILES.items():
        (bad := tmp_path / f"{kind}.png").write_bytes(data)
        said = submit(tab, bad, 2)
        assert said.get_attribute("role") == "alert" and text in said.inner_text()
        assert not download.is_visible()

    # A good one, and what it became.
    photo(60, 44).save(good := tmp_path / "good.png")
    said = submit(tab, good, 2.5)
    assert said.inner_text().startswith("good.png: 60x44 became 150x110 in ") and said.get_attribute("role") == "status"
    shown = tab.locator("#result img")
    sizes = "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
    tab.wait_for_function("[...document.querySelectorAll('#result img')].every(image => image.complete)")
    assert shown.evaluate_all(sizes) == [[150, 110], [150, 110]]
    with tab.expect_download() as waiting:
        download.click()
    assert waiting.value.suggested_filename == "good_x2.5.png"
    waiting.value.save_as(tmp_path / "result.png")
    expected = Upscaler.from_pretrained(device="cpu", tile=128)(photo(60, 44), scale=2.5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "result.png")), np.asarray(expected))

    # A larger scale than the limit allows: the old result is gone.
    photo(900, 900).save(large := tmp_path / "large.png")
    assert "would become 7200x7200" in submit(tab, large, 8).inner_text()
    assert not download.is_visible() and shown.count() == 0

    outside = [url for url in requests if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).port != port]
    assert len(requests) > 10 and not outside and not crashes


@pytest.mark.slow
def test_the_space_in_a_browser(browser, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(server.__file__).parents[2]
    environment = {**os.environ, "PORT": str(port), "FLUXSR_MAX_PIXELS": "100000", "PYTHONPATH": str(root)}
    command = [sys.executable, str(root / "space" / "app.py")]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert f":{port}" in process.stdout.readline()
        tab = browser.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(f"http://127.0.0.1:{port}")
        photo(60, 44).save(good := tmp_path / "good.png")
        assert submit(tab, good, 2).inner_text().startswith("good.png: 60x44 became 120x88 in ")
        with tab.expect_download() as waiting:
            tab.get_by_role("button", name="Download PNG").click()
        waiting.value.save_as(tmp_path / "result.png")
        assert Image.open(tmp_path / "result.png").size == (120, 88)
        assert "would become" in submit(tab, good, 8).inner_text()
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("kind", ["heic", "avif", "16-bit TIFF", "transparent PNG", "texts"])
def test_what_phones_and_cameras_write(page, still, tmp_path, kind):
    """Shown and downloaded as :func:`fluxsr.images.read_picture` has it: upright, at full depth, with all that is told."""
    from PIL import PngImagePlugin

    from fluxsr.images import Picture, read_picture, write_picture

    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "somebody"
    if kind in ("heic", "avif"):
        if kind == "heic":
            pytest.importorskip("pillow_heif").register_heif_opener()
        photo(60, 40).save(path := tmp_path / f"a.{kind}", exif=exif.tobytes(), quality=95)
    elif kind == "16-bit TIFF":
        pixels = np.random.default_rng(0).integers(0, 65536, (40, 60, 3), np.uint16)
        write_picture(path := tmp_path / "a.tif", Picture(pixels))
    else:
        told = PngImagePlugin.PngInfo()
        told.add_text("parameters", "a tree")
        photo(60, 40, "RGBA").save(path := tmp_path / "a.png", pnginfo=told)
    source = read_picture(path)
    result = page.upscale_upload(still, path, 1, 1, tmp_path / "out", 10**6)
    made = read_picture(result.download)
    assert made.pixels.shape == source.pixels.shape == read_picture(result.before).pixels.shape
    assert made.pixels.dtype == source.pixels.dtype
    assert np.abs(made.pixels.astype(int) - source.pixels).max() <= 1 or made.pixels.shape[2] == 4
    assert made.text == source.text and "lacks" not in result.text
    if kind in ("heic", "avif"):
        assert made.pixels.shape[:2] == (60, 40) and made.exif[0x013B] == "somebody"


def test_strength_on_the_page(page, tmp_path):
    upscaler = Upscaler.from_pretrained(device="cpu")
    photo(20, 12).save(tmp_path / "a.png")
    for strength in (0, 0.5):
        result = page.upscale_upload(upscaler, tmp_path / "a.png", 2, 1, tmp_path / "out", 10**6, strength=strength)
        expected = upscaler(photo(20, 12), scale=2, strength=strength)
        np.testing.assert_array_equal(np.asarray(Image.open(result.download)), np.asarray(expected))
    with pytest.raises(ValueError, match="strength"):
        page.upscale_upload(upscaler, tmp_path / "a.png", 2, 1, tmp_path / "out", 10**6, strength=3)
