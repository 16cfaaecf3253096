from __future__ import annotations

import pytest

from fluxsr.cli._support.messages import meant

KNOWN = {"--batch_size", "--trainer.max_steps", "--config", "--model.losses.tv_lpips.init_args.weight", "--max_pixels"}


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("--batchsize", "--batch_size"),
        ("--batch", "--batch_size"),
        ("--trainer.max_stepz", "--trainer.max_steps"),
        ("max_steps", "--trainer.max_steps"),  # the last part alone
        ("--confg", "--config"),
        ("--model.losses.tv_lpip.init_args.weight", "--model.losses.tv_lpips.init_args.weight"),
    ],
)
def test_the_nearest_name(typed, near):
    assert f"{near}?" in meant(typed, KNOWN)


def test_where_none_is_near_something_else_is_said():
    assert meant("--quite-another", KNOWN) == meant("", KNOWN) == ""
    assert meant("--quite-another", KNOWN, "; other") == "; other"
