from __future__ import annotations

import pytest

from fluxsr.cli._support.messages import UsageError, nearest, other_spelling, shortened

KNOWN = {"--batch_size", "--trainer.max_steps", "--config", "--model.losses.tv_lpips.init_args.weight", "--max_pixels"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--batchsize", "--batch_size"),
        ("--batch", "--batch_size"),
        ("--trainer.max_stepz", "--trainer.max_steps"),
        ("--confg", "--config"),
        ("--model.losses.tv_lpip.init_args.weight", "--model.losses.tv_lpips.init_args.weight"),
        ("--quite-another", ""),
    ],
)
def test_the_nearest_name(typed, meant):
    assert nearest(typed, KNOWN) == meant


def test_the_last_part_alone_is_near():
    assert nearest("losses", {"model.losses", "model.objective"}) == "model.losses"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--batch-size", "--batch_size"),
        ("--batch-size=3", "--batch_size=3"),
        ("--trainer.max-steps=a-b", "--trainer.max_steps=a-b"),
        ("--batch_size", "--batch_size"),
        ("--not-known", "--not-known"),
        ("-5", "-5"),
        ("my-file_name", "my-file_name"),
    ],
)
def test_dashes_and_underscores_are_one(typed, meant):
    assert other_spelling(typed, KNOWN) == meant


def test_a_mistake_is_a_value_error_with_fields():
    error = UsageError("there is no such key", "a.yaml: modle", "model")
    assert isinstance(error, ValueError)
    assert (error.what, error.where, error.suggestion) == ("there is no such key", "a.yaml: modle", "model")
    assert all(field in str(error) for field in (error.what, error.where, error.suggestion))
    assert str(UsageError("what")) == "what"


def test_a_librarys_message_is_one_line_of_a_bearable_length():
    assert shortened("a\n  b") == "a b"
    assert len(shortened("word " * 1000)) == 300
