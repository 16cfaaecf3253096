from __future__ import annotations

import subprocess
import sys

import pytest

import fluxsr.losses


def test_import_is_torch_only_and_cheap() -> None:
    code = (
        "import sys, time, torch; start = time.perf_counter(); import fluxsr.losses;"
        "print(time.perf_counter() - start);"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, names = done.stdout.splitlines()
    assert float(seconds) < 0.3
    forbidden = {"lightning", "diffusers", "peft", "torchvision", "lpips", "transformers", "PIL"}
    assert not forbidden & set(names.split())
    assert not done.stderr


def test_losses_know_no_other_room() -> None:
    code = "import sys, fluxsr.losses; print(*[n for n in sys.modules if n.startswith('fluxsr.')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name.startswith("fluxsr.losses") for name in done.stdout.split())


@pytest.mark.parametrize("name", fluxsr.losses.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    assert getattr(fluxsr.losses, name).__doc__


def test_constructors_print_nothing(capfd: pytest.CaptureFixture[str], random_lpips) -> None:
    path = random_lpips("squeeze")[1]
    capfd.readouterr()
    fluxsr.losses.TVLPIPSLoss(net="squeeze", weights=path)
    fluxsr.losses.TVLPIPSLoss(net="nano")
    assert capfd.readouterr() == ("", "")
