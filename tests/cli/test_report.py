from __future__ import annotations

import pytest

from fluxsr.cli.main import main
from tests.cli.conftest import fresh_process_modules


def test_from_evaluation_to_page(photos, tmp_path, capsys):
    run = tmp_path / "run.json"
    main(f"evaluate --hr {photos} --results same={photos} --metrics ssim --output {run}".split())
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.csv").write_text("step,train/loss\n0,1\n1,0.5\n")
    main(f"report {run} --output {tmp_path}/report.html --logs {tmp_path}/logs --title Mine".split())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in text and "Training curves" in text and "train/loss" in text
    assert "report: file://" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none.json --output r.html", "can't read none.json"),
        ("none.json --output r.pdf", "must end in .html"),
        ("--output r.html", "RUN.json"),
        ("none.json --output r.html --images -1", "--images"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["report", *arguments.split()])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and error.count("fluxsr: error:") == 1


def test_help_needs_no_torch():
    code = "from fluxsr.cli.report import COMMAND; COMMAND.help()"
    assert "torch" not in fresh_process_modules(code)
