"""Filters messages of other libraries that do not matter in training, by their words; everything else is shown."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# (words, module, why it says nothing here)
_WARNINGS = (
    (r".*isinstance\(treespec, LeafSpec\)", r"lightning\..*", "Lightning's own use of a deprecated function of torch"),
    (
        r"Found \d+ module\(s\) in eval mode",
        r"lightning\..*",
        "the autoencoder and perceptual nets are frozen by design",
    ),
    (r"Total length of `list` across ranks is zero", r"lightning\..*", "no validation photos were given"),
    (r"The dirpath has changed from", r"lightning\..*", "each run, a resumed one too, has a folder of its own"),
    (
        r"Mismatch dtype between input and weight",
        "",
        "float32 norm weights under bf16 autocast: torch takes another kernel",
    ),
)
# Beginnings of lines that Lightning logs.
_LINES = ("TPU available:", "💡 Tip:", "\nDetected KeyboardInterrupt")  # of the last, we say more ourselves


class _NoAdvertisement(logging.Filter):
    """Drops lines by how they begin."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        return not record.getMessage().startswith(_LINES)


@contextmanager
def quiet() -> Iterator[None]:
    """Filter during the body."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
    ]
    silent = _NoAdvertisement()
    with warnings.catch_warnings():
        for words, module, _ in _WARNINGS:
            warnings.filterwarnings("ignore", message=words, module=module)
        for logger in loggers:
            logger.addFilter(silent)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(silent)
