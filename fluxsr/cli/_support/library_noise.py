"""Filters messages of other libraries that do not matter in training, by their words; everything else is shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of a deprecated function of torch
    r"Found \d+ module\(s\) in eval mode",  # the autoencoder and perceptual nets are frozen by design
    r"Total length of `list` across ranks is zero",  # no validation photos were given
    r"The dirpath has changed from",  # each run, a resumed one too, has a folder of its own
    r"Mismatch dtype between input and weight",  # float32 norm weights under bf16 autocast: torch takes another kernel
)
# Beginnings of lines that Lightning logs.
_LINES = ("TPU available:", "💡 Tip:", "\nDetected KeyboardInterrupt")  # of the last, we say more ourselves


def _matters(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)


@contextmanager
def quiet() -> Iterator[None]:
    """Filter during the body."""
    loggers = [logging.getLogger(f"lightning.{part}.utilities.rank_zero") for part in ("pytorch", "fabric")]
    with warnings.catch_warnings():
        for words in _WARNINGS:
            warnings.filterwarnings("ignore", message=words)
        for logger in loggers:
            logger.addFilter(_matters)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_matters)
