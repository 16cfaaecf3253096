from __future__ import annotations

import pytest
import torch
from torch import nn

from fluxsr.ledger import Ledger, NotPlannable


def test_live_bytes_rise_and_fall_with_the_tensors():
    ledger = Ledger()
    with ledger, ledger.during("work"):
        a = torch.zeros(1000)
        b = a + 1
        assert ledger.total == 8000
        del a
        assert ledger.total == 4000
    assert ledger.peaks["work"].total == 8000
    del b
    assert ledger.total == 0


def test_views_share_their_storage():
    ledger = Ledger()
    with ledger:
        a = torch.zeros(10, 10)
        views = [a.t(), a[3], a.reshape(-1)]
        assert ledger.total == 400
        del a
        assert ledger.total == 400
        del views
        assert ledger.total == 0


def test_what_autograd_keeps_for_backward_is_alive_until_then():
    weight = torch.randn(100, 100, requires_grad=True)
    ledger = Ledger()
    with ledger:
        out = (torch.ones(1, 100) @ weight).exp().sum()
        before = ledger.total
        out.backward()
        assert ledger.total < before + 40_000  # the gradient came, exp's output went
        assert ledger.flops[ledger.phase] == 2 * (2 * 100 * 100)  # forward, and the weight's gradient


def test_kinds_are_booked_with_the_share_that_a_process_holds():
    layer = nn.Linear(10, 10, bias=False)
    ledger = Ledger({"held": 0.25})
    ledger.own(layer.weight, "other")
    ledger.own(layer.weight, "held")
    assert ledger.live == {"other": 0.0, "held": 100.0}


def test_questions_about_values_that_are_not_there_are_refused_within_a_step():
    x = torch.empty(3, device="meta")
    ledger = Ledger()
    with ledger:
        assert x.sum().cpu().device.type == "cpu" and float(x.sum()) == 1.0  # numbers for a log
        ledger.answers = False
        for question in (lambda: bool((x < 0).any()), lambda: x.nonzero(), lambda: x[x > 0]):
            with pytest.raises(NotPlannable) as caught:
                question()
            assert caught.value.operation in ("aten._local_scalar_dense", "aten.nonzero", "aten.index")
