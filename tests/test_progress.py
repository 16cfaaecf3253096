from __future__ import annotations

import io
import sys

import pytest

from fluxsr.progress import progress_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("unit", "shown"), [("", "3/7"), ("MP", "3.0/7.0 MP")])
def test_a_terminal_shows_what_is_done_of_all(monkeypatch, unit, shown):
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress_of("work", unit) as report:
        report(0, 7)
        report(3, 7, "[a].png")
    assert shown in stderr.getvalue() and "[a].png" in stderr.getvalue()


def test_where_there_is_no_terminal_nobody_is_asked_to_report(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_of("work") as report:
        assert report is None
