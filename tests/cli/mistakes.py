"""Running a command that fails, and what it says."""

from __future__ import annotations

import pytest

from fluxsr.cli.main import main


def failed(capsys, *arguments: object) -> str:
    """Run a command that must end with exit code 2; returns its error, which is one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert said.count("fluxsr: error: ") == 1 and "Traceback" not in said, said
    line = said.splitlines()[-1]
    assert line.startswith("fluxsr: error: ") and len(line) < 450, line
    return line
