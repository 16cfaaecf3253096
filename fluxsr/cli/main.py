"""Runs the ``fluxsr`` command: it finds the subcommand before anything heavy is imported."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

# name -> (module, one line of help); the module's main(arguments) runs it.
COMMANDS = {
    "upscale": ("fluxsr.cli.upscale", "upscale photos of any size and format, by any factor"),
    "app": ("fluxsr.cli.app", "open a page in the browser: drop a photo, compare, download"),
    "demo": ("fluxsr.cli.demo", "run every step on small models in six minutes, on any machine, with a report"),
    "fit": ("fluxsr.cli.fit", "train a model as a configuration says"),
    "configs": ("fluxsr.cli.configs", "list the configurations that come with the package, or copy one"),
    "plan": ("fluxsr.cli.plan", "compute what a training run needs in memory and time, before it starts"),
    "validate": ("fluxsr.cli.fit", "measure on the validation images"),
    "test": ("fluxsr.cli.fit", "measure on the test images"),
    "predict": ("fluxsr.cli.fit", "upscale images with a configuration and a checkpoint"),
    "ablation": ("fluxsr.cli.ablation", "train every variant of a grid and compare all of them in one table"),
    "pairs": ("fluxsr.cli.pairs", "make teacher pairs (noise, latents, image) for flow trajectory distillation"),
    "export": (
        "fluxsr.cli.export",
        "write a base and its adapter as one model: fused, folded, quantized, in diffusers' format",
    ),
    "evaluate": ("fluxsr.cli.evaluate", "measure models and folders of results, and write down the protocol"),
    "report": ("fluxsr.cli.report", "write an HTML page from evaluations: tables, plots, pictures side by side"),
    "study": ("fluxsr.cli.study", "make a page on which people compare pictures blindly, and score their votes"),
    "prompt": ("fluxsr.cli.prompt", "encode a prompt once, into a file that training reads"),
}

USAGE = """\
fluxsr: one-step image super-resolution by flow distillation on FLUX

usage: fluxsr COMMAND [options]      (`fluxsr help COMMAND` explains each)

"""


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; a user's mistake ends in one line on stderr and exit code 2, never in a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        from fluxsr import __version__

        print(__version__)
        return
    if arguments[:1] == ["help"]:  # `fluxsr help upscale`
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 2
        print(USAGE + "\n".join(f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()))
        return
    name, *options = arguments
    if name not in COMMANDS:
        from fluxsr.cli._support.messages import meant

        other = f"; there are: {', '.join(COMMANDS)}"
        fail(f"{name}: unknown command{meant(name, COMMANDS, other)}")
    module = COMMANDS[name][0]
    lightning = module == "fluxsr.cli.fit"
    if lightning and {"-h", "--help"} & {*options}:
        print(training_help(name), end="")
        return
    try:
        import_module(module).main(arguments if lightning else options)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on where it can", code=130)
    except (ValueError, OSError) as error:
        fail(str(error), cause=error)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "fluxsr"):
            raise
        fail(f"the package {package} is missing: install fluxsr with what it needs (pip install fluxsr)", cause=error)


def training_help(name: str) -> str:
    """Return the page of one of the four commands of training, seconds sooner than the libraries that train are imported."""
    from pathlib import Path

    from fluxsr.cli._support.command import flow

    page = Path(__file__).parent.joinpath("_support", "fit_help.txt").read_text("utf-8")
    examples, rest = page.split("\n\n", 1)
    own = [line for line in examples.splitlines() if line.startswith(f"  fluxsr {name} ")]
    usage = f"usage: fluxsr {name} --config FILE [--config FILE ...] [--KEY VALUE ...]"
    what = COMMANDS[name][1]
    return "\n\n".join([f"{what[0].upper()}{what[1:]}.", usage, "\n".join(["examples:", *own]), flow(rest)]) + "\n"


def fail(message: str, code: int = 2, cause: BaseException | None = None) -> NoReturn:
    """Print one line to stderr and exit."""
    print(f"fluxsr: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code) from cause
