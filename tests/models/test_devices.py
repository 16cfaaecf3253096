import pytest
import torch

from fluxsr.models.devices import check_torch


def test_a_feature_that_torch_is_too_old_for_is_refused(monkeypatch):
    check_torch("2.6", "something")
    monkeypatch.setattr(torch, "__version__", "2.10.1+cpu")
    check_torch("2.10", "something")
    with pytest.raises(ValueError, match=r"something needs torch 2\.11 .*2\.10\.1"):
        check_torch("2.11", "something")
