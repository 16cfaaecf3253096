"""What all tests share: real photos where they are, and a generator of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
# Tiny tensors gain nothing from threads, and the tests run in two processes.
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real photos and weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FLUXSR_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no real photos and weights at {folder} (FLUXSR_ASSETS names another folder)")
    return folder
