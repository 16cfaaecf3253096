"""The example of an SD3-type transformer trains."""

from __future__ import annotations

import re
import runpy

from tests.docs.pages import ROOT


def test_both_losses_fall(capsys):
    runpy.run_path(str(ROOT / "examples" / "bring_an_sd3_transformer.py"), run_name="__main__")
    values = re.findall(r"step \d+: FTD ([\d.]+), one-step restoration ([\d.]+)", capsys.readouterr().out)
    assert len(values) == 4
    for first, last in zip(values[0], values[-1], strict=True):
        assert float(last) < 0.95 * float(first)
