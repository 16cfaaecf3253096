"""The wheel, built from the sdist and installed, run from a folder outside the checkout with the network cut off.

The dependencies come from the environment that runs the tests, through a path file; fluxsr comes from the wheel alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fluxsr
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CONFIGS = ROOT / "examples" / "configs"
UV = shutil.which("uv")


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The folder of the sdist, and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    if UV is not None:
        command = [UV, "build", "--quiet", "--out-dir", str(folder), str(ROOT)]
    elif importlib.util.find_spec("build") is not None:
        command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    else:
        pytest.skip("neither uv nor the package build is here to build the wheel with")
    subprocess.run(command, check=True, timeout=240, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment whose fluxsr is the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=UV is None)
    python = folder / "bin" / "python"
    install = (
        [UV, "pip", "install", "--quiet", "--python", str(python)] if UV else [str(python), "-m", "pip", "install"]
    )
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    # A path file adds folders and does not read the path files inside them: the checkout, installed there, stays away.
    own = next(folder.glob("lib/python*/site-packages"))
    dependencies = importlib.metadata.distribution("torch").locate_file("")
    (own / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder


@pytest.fixture(scope="module")
def cut_off(environment, tmp_path_factory):
    """Run a program of the environment in an empty folder, without network, caches or weights of this machine."""
    folder = tmp_path_factory.mktemp("elsewhere")
    unshare = shutil.which("unshare")
    cut = unshare is not None and subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode == 0
    nowhere = "http://127.0.0.1:9"
    variables = {
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "HF_HUB_OFFLINE": "1",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
    }
    print("the network is cut off by", "a network namespace of its own" if cut else "proxies that point nowhere")

    def run(program: str, *arguments: str) -> str:
        command = [*([str(unshare), "-rn"] if cut else []), str(environment / "bin" / program), *arguments]
        result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=280)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run.folder = folder
    return run


def test_the_sdist_holds_what_a_packager_needs(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "LICENSES/LPIPS-BSD-2-Clause.txt", "Makefile", "NOTICE",
        "README.md", "mkdocs.yml", "pyproject.toml", "docs/index.md", "examples/import_one_loss.py", "tests/conftest.py",
    }  # fmt: skip
    assert wanted <= names
    assert not [name for name in names if name.startswith(("outputs/", ".venv", "site/"))]


def test_the_wheel_holds_weights_tables_types_and_licenses(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"fluxsr-{fluxsr.__version__}.dist-info/METADATA").decode()
    here = ROOT / "fluxsr"
    data = {
        str(path.relative_to(ROOT))
        for path in here.rglob("*")
        if path.suffix in (".safetensors", ".csv", ".js", ".css")
    }
    configs = {f"fluxsr/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")}
    assert "fluxsr/configs/memory/48gb.yaml" in configs and configs <= names
    assert len(data) >= 7 and data | {"fluxsr/py.typed"} <= names
    licenses = f"fluxsr-{fluxsr.__version__}.dist-info/licenses/"
    assert {licenses + name for name in ("LICENSE", "NOTICE", "LICENSES/LPIPS-BSD-2-Clause.txt")} <= names
    assert not [name for name in names if not name.startswith("fluxsr")]
    for extra in ("prompt", "clip", "quant", "app", "metrics", "peers"):
        assert f"Provides-Extra: {extra}" in metadata


def test_the_installed_package_is_the_wheels(cut_off, environment):
    code = "import fluxsr, importlib.metadata as m; print(fluxsr.__file__, fluxsr.__version__, m.version('fluxsr'))"
    file, version, installed = cut_off("python", "-c", code).split()
    assert Path(file).is_relative_to(environment)
    assert version == installed == fluxsr.__version__ == cut_off("fluxsr", "--version").strip()


def test_upscale_works_cut_off(cut_off):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    Image.fromarray(pixels).save(cut_off.folder / "photo.png")
    cut_off("fluxsr", "upscale", "photo.png", "-o", "out.png")
    with Image.open(cut_off.folder / "out.png") as image:
        assert image.size == (124, 96)


def test_training_by_a_bare_name_works_cut_off(cut_off):
    photos = cut_off.folder / "photos"
    photos.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (160, 160, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{seed}.png")
    assert "memory/48gb" in cut_off("fluxsr", "configs")
    cut_off("fluxsr", "configs", "fluxsr_nano", "-o", "mine.yaml")
    assert (cut_off.folder / "mine.yaml").read_bytes() == (CONFIGS / "fluxsr_nano.yaml").read_bytes()
    options = "--data.photos photos --data.val_photos photos --data.val_crop 64 --data.batch_size 2 --make_pairs.num 2"
    options += " --trainer.max_steps 1 --trainer.val_check_interval 1"
    cut_off("fluxsr", "fit", "--config", "fluxsr_nano", *options.split())
    outputs = cut_off.folder / "outputs" / "fluxsr_nano"
    assert (outputs / "backbone.safetensors").is_file()
    assert list((outputs / "previews").glob("*.png"))
    if importlib.util.find_spec("tensorboard"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(next(outputs.rglob("events.out.*")).parent))
        assert events.Reload().Tags()["images"] == ["preview"]


def test_the_demo_works_cut_off(cut_off):
    # As few pairs and steps as it takes: what they are good for is measured elsewhere.
    cut_off("fluxsr", "demo", "--minutes", "1", "--num_pairs", "8", "--steps", "3", "--output", "demo")
    assert (cut_off.folder / "demo" / "report.html").stat().st_size > 100_000
    assert (cut_off.folder / "demo" / "lora.safetensors").is_file()
