from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from fluxsr.cli.main import main
from tests.cli.mistakes import failed


def photo(width=10, height=7, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Three photos, one of them in a subfolder."""
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    photo().save(source / "a.png")
    photo().save(source / "b.jpg")
    photo(mode="RGBA").save(source / "sub" / "c.png")
    return source


def run(*arguments):
    """Run the command in this process; returns the exit code."""
    try:
        main(["upscale", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sizes(folder):
    return {name: Image.open(folder / name).size for name in names(folder)}


def test_folders_keep_their_structure(folder, tmp_path, capsys):
    assert run(folder, "-o", tmp_path / "out", "--scale", "1.5") == 0
    assert sizes(tmp_path / "out") == dict.fromkeys(["a.png", "b.jpg", "sub/c.png"], (15, 10))
    assert Image.open(tmp_path / "out" / "sub" / "c.png").mode == "RGBA"
    printed = capsys.readouterr()
    (last,) = printed.err.splitlines()
    assert last.startswith("fluxsr: 3 upscaled, 0 failed; 0.0 megapixels in ") and "MP/s" in last
    assert len(printed.out.splitlines()) == 3 and "a.png 15x10" in printed.out


def test_patterns_suffixes_and_formats(folder, tmp_path):
    assert run(f"{folder}/**/*.png", "-o", tmp_path / "out", "--suffix", "_x2", "--scale", 2, "--format", "tif") == 0
    assert sizes(tmp_path / "out") == dict.fromkeys(["a_x2.tif", "c_x2.tif"], (20, 14))


@pytest.mark.parametrize(
    "options", [["--tile", "off"], ["--tile", 64], ["--color_fix", "adain"], ["--steps", 2], ["--dtype", "bfloat16"]]
)
def test_options(folder, tmp_path, options):
    assert run(folder / "a.png", "-o", tmp_path / "out", *options) == 0
    assert sizes(tmp_path / "out") == {"a.png": (40, 28)}


def test_nothing_is_overwritten_unless_told(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"precious")
    assert run(folder, "-o", out) == 1
    assert (out / "a.png").read_bytes() == b"precious" and names(out) == ["a.png", "b.jpg", "sub/c.png"]
    error = capsys.readouterr().err.splitlines()[0]
    assert error == f"fluxsr: error: {out}/a.png exists: give --overwrite or --skip_existing"
    assert run(folder, "-o", out, "--skip_existing") == 0
    assert (out / "a.png").read_bytes() == b"precious"
    assert run(folder / "a.png", "-o", out, "--overwrite") == 0
    assert Image.open(out / "a.png").size == (40, 28)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("a.png", ["--output"]),
        ("-o out", ["IN"]),
        ("a.png -o out --scale 0", ["scale", "0"]),
        ("a.png -o out --scale two", ["--scale", "two"]),
        ("a.png -o out --scael 2", ["--scael", "--scale?"]),
        ("a.png -o out --size 30", ["--size", "30"]),
        ("a.png -o out --size 30x20 --scale 2", ["--size", "--scale"]),
        ("a.png -o out --steps 0", ["steps", "0"]),
        ("a.png -o out --tile big", ["--tile", "big"]),
        ("a.png -o out --color_fix magic", ["--color_fix", "magic"]),
        ("a.png -o out --dtype float99", ["--dtype", "float99"]),
        ("a.png -o out --overwrite --skip_existing", ["overwrite", "skip_existing"]),
        ("a.png -o b.png --model nowhere.safetensors", ["nowhere.safetensors"]),
        ("a.png -o b.png --device tpu", ["'tpu'"]),
        ("a.png -o b.png --tile 1", ["16 pixels"]),
        ("a.png -o b.png --window 1", ["window", "16 pixels"]),
        ("a.png c.png -o b.png", ["2 images"]),
        ("a.png -o file", ["file is a file"]),
    ],
)
def test_mistakes_in_the_options_are_named(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    photo().save("a.png")
    (tmp_path / "file").touch()
    error = failed(capsys, "upscale", *arguments.split())
    assert all(word in error for word in named), error
    assert not (tmp_path / "out").exists() and not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png", "-o", "out"], "missing.png does not exist"),
        (["*.gif", "-o", "out"], "*.gif matches no file"),
        (["empty", "-o", "out"], "no images in empty"),
        (["a.png", "-o", "out", "--max_pixels", "50"], "a.png: it has 10x7 pixels"),
        (["a.png", "-o", "out", "--max_pixels", "1e3"], "a.png would become 40x28, 0.0 million pixels"),
        (["a.png", "-o", "a.webp", "--size", "17000x1"], "WEBP holds at most 16383 pixels a side"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    photo().save("a.png")
    (tmp_path / "empty").mkdir()
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("out/*")) and not list(tmp_path.glob("**/.tmp-*"))


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(folder, capsys, monkeypatch):
    from fluxsr.images.write import PictureFile

    def full(self, *arguments):
        raise OSError(28, "No space left on device", str(self.path.with_name(f".tmp-1-{self.path.name}")))

    monkeypatch.setattr(PictureFile, "write", full)
    assert run(folder / "a.png", "-o", folder / "large.png") == 1
    assert capsys.readouterr().err == f"fluxsr: error: can't write {folder}/large.png: No space left on device\n"


def test_pages_beyond_the_first_are_told(tmp_path, capsys):
    photo().save(tmp_path / "a.tif", save_all=True, append_images=[photo()])
    assert run(tmp_path / "a.tif", "-o", tmp_path / "out") == 0
    assert "a.tif has 2 pages or frames: only the first is upscaled" in capsys.readouterr().err


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys; from fluxsr.cli.main import main\n"
        "try: main(['upscale', '--help'])\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("False\n") and "--color_fix" in result.stdout


def mutations(count, seed=0):
    """Yield (name, bytes) of damaged images: cut off, bits flipped, bytes inserted, headers enlarged, suffixes exchanged."""
    import io

    draw = random.Random(seed)
    originals = []
    for suffix, kind, options in (
        ("png", "PNG", {}),
        ("jpg", "JPEG", {}),
        ("webp", "WEBP", {}),
        ("tif", "TIFF", {"compression": "tiff_lzw"}),
        ("tif", "TIFF", {}),
        ("bmp", "BMP", {}),
    ):
        for mode in ("RGB", "L", "RGBA") if kind not in ("JPEG", "BMP") else ("RGB", "L"):
            buffer = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            photo(16, 12, mode).save(buffer, kind, **options, **({"exif": exif} if kind != "BMP" else {}))
            originals.append((suffix, buffer.getvalue()))
    from fluxsr.images.png import write_png
    from fluxsr.images.tiff import write_tiff

    deep = np.random.default_rng(0).integers(0, 65536, (12, 16, 3), np.uint16)
    for suffix, write in (
        ("png", lambda file: write_png(file, deep, b"profile", None, None, None, {}, None)),
        ("tif", lambda file: write_tiff(file, deep, b"profile", {}, None)),
    ):
        write(buffer := io.BytesIO())
        originals.append((suffix, buffer.getvalue()))
    for number in range(count):
        suffix, data = draw.choice(originals)
        data = bytearray(data)
        kind = number % 6
        if kind == 0:
            data = data[: draw.randrange(len(data))]
        elif kind == 1:
            for _ in range(draw.choice([1, 3, 20])):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif kind == 2:
            place = draw.randrange(len(data))
            data[place:place] = draw.randbytes(draw.choice([1, 4, 100]))
        elif kind == 3:  # the headers, where sizes and types are
            for _ in range(4):
                data[draw.randrange(min(64, len(data)))] = draw.choice([0, 0x7F, 0xFF])
        elif kind == 4:
            suffix = draw.choice(["png", "jpg", "webp", "tif", "bmp"])
            data = data if draw.random() < 0.5 else bytearray(draw.randbytes(200))
        else:
            start = draw.randrange(len(data))
            data[start : start + 30] = bytes(len(data[start : start + 30]))
        yield f"m{number:03}.{suffix}", bytes(data)


def test_damaged_files_are_lines_and_good_ones_are_done(tmp_path):
    """The command in a process of its own, where libraries write to the real stderr."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, data in mutations(150):
        (source / name).write_bytes(data)
    (source / "zero.png").touch()
    (source / "folder.png").mkdir()
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 10**5, 10**5, 8, 2, 0, 0, 0)
    (source / "bomb.png").write_bytes(
        bomb + struct.pack(">I", zlib.crc32(bomb[12:])) + struct.pack(">I4s", 0, b"IDAT") + b"\x35\xaf\x06\x1e"
    )
    for number in range(5):
        photo().save(source / f"good{number}.png")
    result = in_a_process(source, "-o", out, "--scale", 1, "--max_pixels", "1e5", stdout=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("fluxsr: error: ")]
    warnings = [line for line in lines if line.startswith("fluxsr: warning: ")]
    assert lines.pop().startswith("fluxsr: ")  # the counts
    assert len(errors) + len(warnings) == len(lines), [line for line in lines if not line.startswith("fluxsr: ")]
    done = names(out)
    assert len(done) + len(errors) == 157 and len(errors) > 50
    assert {f"good{number}.png" for number in range(5)} < set(done)
    failed = {name for name in names(source) if any(f"/{name}" in line for line in errors)}
    assert failed == set(names(source)) - set(done) and {"zero.png", "bomb.png"} < failed
    for name in done:
        with Image.open(out / name) as image:
            image.load()


def in_a_process(*arguments, **options):
    command = [sys.executable, "-m", "fluxsr", "upscale", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=200, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes, and /dev/full")
@pytest.mark.parametrize("stdout", ["encoding", "closed", "full"])
def test_a_batch_outlives_its_stdout(folder, tmp_path, stdout):
    """Names that can't be printed, a pipe that nobody reads, a disk without room: the pictures are done."""
    import os

    os.rename(folder / "a.png", os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    options = {"env": {**os.environ, "PYTHONIOENCODING": "ascii"}}
    if stdout == "full":
        with open("/dev/full", "wb") as full:
            result = in_a_process(folder, "-o", tmp_path / "out", "--scale", 1, stdout=full, **options)
    elif stdout == "closed":
        reading, writing = os.pipe()
        os.close(reading)
        result = in_a_process(folder, "-o", tmp_path / "out", "--scale", 1, stdout=writing, **options)
    else:
        result = in_a_process(folder, "-o", tmp_path / "out", "--scale", 1, stdout=subprocess.PIPE, **options)
        assert b"caf\\udce9.png" in result.stdout and result.stdout.count(b"\n") == 3
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 3
    assert result.returncode == (1 if stdout == "full" else 0)
    lines = result.stderr.splitlines()
    assert len(lines) == (2 if stdout == "full" else 1) and b"3 upscaled" in lines[0]


@pytest.mark.skipif(sys.platform == "win32", reason="such a name can't be there")
def test_a_name_that_would_end_the_line_is_one_line(tmp_path, capsys):
    name = "two\nlines\x1b[31m\u2028.png"
    photo().save(tmp_path / name)
    assert run(tmp_path / name, "-o", tmp_path / "out", "--scale", "1") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "two\\nlines\\x1b[31m\\u2028.png" in line
    assert (tmp_path / "out" / name).is_file()


def test_a_teacher_and_a_broken_model_are_errors(tmp_path, capsys):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from fluxsr.models.known_names import ASSETS, SHIPPED

    photo().save(tmp_path / "a.png")
    for model in ("nano", ASSETS / SHIPPED["nano"]):
        assert "teacher" in str(
            failed(capsys, "upscale", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", model)
        )
    weights = load_file(ASSETS / SHIPPED["nano-student"])
    weights["x_embedder.weight"].fill_(float("nan"))
    with safe_open(ASSETS / SHIPPED["nano-student"], "pt") as file:
        save_file(weights, tmp_path / "nan.safetensors", file.metadata())
    assert run(tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", tmp_path / "nan.safetensors") == 1
    assert "NaN" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


def test_ctrl_c_says_how_to_go_on(folder, tmp_path, capsys, monkeypatch):
    from fluxsr.inference import Upscaler

    def interrupted(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Upscaler, "upscale_pixels", interrupted)
    assert run(folder, "-o", tmp_path / "out") == 130
    assert "--skip-existing" in capsys.readouterr().err and not list((tmp_path / "out").glob("**/.tmp-*"))


def test_a_memory_is_planned_and_said_before_the_model_is_loaded(folder, tmp_path, capsys):
    assert run(folder / "a.png", "-o", tmp_path / "out.png", "--memory", "8GB", "--device", "cpu") == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert "expected peak" in first and "8.0 GB" in first
    assert run(folder / "a.png", "-o", tmp_path / "out.png", "--memory", "1KB", "--overwrite", "--device", "cpu") == 2
    assert "at least" in capsys.readouterr().err
