"""Running a command that fails, and what it raised."""

from __future__ import annotations

import pytest

from fluxsr.cli._support.messages import UsageError
from fluxsr.cli.main import main


def failed(capsys, *arguments: object) -> BaseException:
    """Run a command that must end with exit code 2 and one line; returns the error that the line says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert said.count("fluxsr: error: ") == 1 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith("fluxsr: error: ")
    return stopped.value.__cause__


def mistake(capsys, *arguments: object) -> UsageError:
    """The mistake in the options or the configuration that a command refuses."""
    error = failed(capsys, *arguments)
    assert isinstance(error, UsageError), repr(error)
    return error
