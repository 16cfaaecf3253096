import sys
from types import SimpleNamespace

import pytest
import torch

from fluxsr.training import AdamW8bit


def parameters(device="cpu"):
    return [torch.nn.Parameter(torch.zeros(3, device=device))]


def test_it_is_bitsandbytes_own(monkeypatch):
    """With a stand-in: the real one needs CUDA."""
    made = []
    optimiser = SimpleNamespace(AdamW8bit=lambda params, **options: made.append((params, options)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=optimiser))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    weights = parameters()
    AdamW8bit(weights, lr=1e-3, weight_decay=0.1)
    assert made == [(weights, {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.1})]


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"AdamW8bit needs the extra quant: pip install 'fluxsr\[quant\]'"):
        AdamW8bit(parameters())
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a CUDA device"):
        AdamW8bit(parameters())


def test_planning_needs_neither(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert "8bit" in type(AdamW8bit(parameters("meta"))).__name__
