from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from benchmarks import architecture, gpu

RESULTS = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest">
<testcase classname="tests.a" name="test_good" time="1.5" />
<testcase classname="tests.a" name="test_bad[x]" time="0.25"><failure message="1 | 2&#10;more">where</failure></testcase>
<testcase classname="tests.a" name="test_broken" time="0"><error message="no fixture">where</error></testcase>
<testcase classname="tests.b" name="test_left_out" time="0"><skipped message="no torchao">where</skipped></testcase>
</testsuite></testsuites>"""


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--output", str(tmp_path / "out")])
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("good", [True, False])
def test_the_page_has_the_devices_name_the_tests_and_the_tables(monkeypatch, tmp_path, good):
    def pytest_writes(command, **_):
        path = next(word for word in command if word.startswith("--junit-xml=")).partition("=")[2]
        text = RESULTS.replace("failure", "skipped").replace("error", "skipped") if good else RESULTS
        (tmp_path / path).write_text(text)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB (HBM3)")
    monkeypatch.setattr(gpu.subprocess, "run", pytest_writes)
    measured = SimpleNamespace(markdown=lambda: "| rung | 1 |\n")
    ran = []
    monkeypatch.setattr(architecture, "run", lambda output, model, minutes: ran.append(model) or measured)
    with nullcontext() if good else pytest.raises(SystemExit, match="1"):
        gpu.main(["--output", str(tmp_path)])
    assert ran == ["flux.2-klein-base-4b", "flux.1-dev"]
    text = (tmp_path / "nvidia-h100-80gb-hbm3.md").read_text()
    assert text.startswith("# NVIDIA H100 80GB (HBM3)\n") and text.endswith("| rung | 1 |\n")
    assert "| tests.a.test_good | passed | 1.5 |" in text
    assert f"| tests.a.test_bad[x] | **{'skipped' if good else 'failed'}**: 1 / 2 | 0.2 |" in text
    assert "| tests.b.test_left_out | **skipped**: no torchao | 0.0 |" in text


def test_a_run_without_results_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=4))
    (only,) = gpu.run_tests(tmp_path / "none.xml")
    assert only.outcome == "failed" and "4" in only.why
