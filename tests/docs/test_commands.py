"""Every `fluxsr ...` on the pages is a command that exists, with options that exist."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from types import ModuleType

import pytest

from fluxsr.cli.main import COMMANDS, main
from tests.docs.pages import ROOT, blocks

LIGHTNING = {name for name, (module, _) in COMMANDS.items() if module == "fluxsr.cli.fit"}


def commands(text: str) -> list[list[str]]:
    """Return the words after `fluxsr` of each such line; lines that end in a backslash go on."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    words = [shlex.split(line, comments=True) for line in lines if re.match(r"\s*(\w+=\S+ )*fluxsr ", line)]
    return [line[line.index("fluxsr") + 1 :] for line in words]


ALL = [(block.page, arguments) for block in blocks("bash", "sh", "") for arguments in commands(block.text)]


@cache
def options(command: str) -> frozenset[str]:
    """Return the options in a command's help."""
    with redirect_stdout(StringIO()) as text, suppress(SystemExit):
        main([command, "--help"])
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text.getvalue()))


@pytest.fixture
def parse_only(monkeypatch):
    """Let Lightning's commands read all their arguments, every key against its class, and then stop."""
    from fluxsr.cli._support.fit_cli import FluxSRCLI

    monkeypatch.chdir(ROOT)
    for step in ("before_instantiate_classes", "instantiate_classes", "_run_subcommand", "_set_seed"):
        monkeypatch.setattr(FluxSRCLI, step, lambda self, *args: None)


def written_by_a_reader(monkeypatch) -> None:
    """CONTRIBUTING.md has its reader write an objective, and trains it then."""
    from fluxsr import flows

    text = next(b.text for b in blocks("python") if b.page == "CONTRIBUTING.md" and "class DirectRestoration" in b.text)
    module = ModuleType("fluxsr.flows.direct_restoration")
    exec(text, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(flows, "DirectRestoration", module.DirectRestoration, raising=False)


@pytest.mark.parametrize(("page", "arguments"), ALL, ids=lambda value: value if isinstance(value, str) else value[0])
def test_the_command_is_understood(page, arguments, request, monkeypatch):
    command, *rest = arguments
    assert command in COMMANDS, f"{page}: fluxsr {command}"
    if command == "plan":  # options of its own, each with a value, and those of fit
        own = options(command) - {"--config"}
        rest = [
            word for i, word in enumerate(rest) if word.split("=")[0] not in own and (i == 0 or rest[i - 1] not in own)
        ]
        command, arguments = "fit", ["fit", *rest]
    if command in LIGHTNING:
        request.getfixturevalue("parse_only")
        if page == "CONTRIBUTING.md":
            written_by_a_reader(monkeypatch)
        main(arguments)
    else:
        given = {word.split("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
        assert given <= options(command), f"{page}: {given - options(command)}"


# Overrides that stand in the running text of a page, and the configuration that they are meant for.
CONFIGURATIONS = {
    "README.md": "fluxsr_nano",
    "docs/train-on-flux.md": "fluxsr_klein4b",
    "docs/flowsr.md": "flowsr_stage2",
}
OVERRIDES = [
    (page, override)
    for page in CONFIGURATIONS
    for override in re.findall(r"`(--(?:model|data|trainer)\.[^`]+)`", (ROOT / page).read_text("utf-8"))
]


@pytest.mark.parametrize(("page", "override"), OVERRIDES)
def test_the_override_is_understood(page, override, parse_only):
    main(["fit", "--config", f"examples/configs/{CONFIGURATIONS[page]}.yaml", *shlex.split(override)])


def test_many_commands_are_looked_at():
    assert len(ALL) >= 25
    assert {page for page, _ in OVERRIDES} == set(CONFIGURATIONS)
    assert {"fit", "pairs", "prompt", "upscale", "evaluate", "report", "export", "app", "demo"} <= {
        a[0] for _, a in ALL
    }


def test_a_mistyped_key_is_found(parse_only, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "examples/configs/fluxsr_nano.yaml", "--model.losses.tv_lpips.init_args.wieght=2"])
    assert "wieght" in capsys.readouterr().err
    assert "--nmu" not in options("pairs")
    assert "--num" in options("pairs")
