"""``fluxsr app``: a page in the browser, served from this computer."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fluxsr.cli import upscale
from fluxsr.cli.main import fail
from fluxsr.cli.run import argument_parser

if TYPE_CHECKING:
    import gradio as gr

LOOPBACK = "127.0.0.1"
# An upload may be this large for each pixel: 16-bit RGBA, uncompressed.
_BYTES_PER_PIXEL = 8


def main(arguments: list[str]) -> None:
    """Run the command."""
    options = make_parser().parse_args(arguments)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import: nothing is counted or looked up elsewhere
    try:
        import gradio  # noqa: F401
    except ImportError:
        fail("the page needs Gradio: pip install 'fluxsr[app]'")
    upscaler = upscale.load(options)
    with tempfile.TemporaryDirectory(prefix="fluxsr-app-") as folder:
        # Where Gradio keeps uploads and results. A folder of our own is gone, and all in it, when the page ends.
        os.environ["GRADIO_TEMP_DIR"] = folder
        from fluxsr.app.upscale_page import make_page

        page = make_page(upscaler, options.model or "nano-student", Path(folder), options.max_pixels)
        serve(page, options.host, options.port, options.max_pixels)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argument_parser(
        "app",
        "Serve a page on this computer: drop a photo, compare before and after, download the result.",
        "[options]",
        """
        fluxsr app
        fluxsr app --model nano --lora outputs/fluxsr_nano/backbone.safetensors --port 8000
        """,
        "Needs Gradio: pip install 'fluxsr[app]'. Ctrl-C ends it; uploads and results are deleted then.",
    )
    add = parser.add_argument
    add(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help="address to listen at; 0.0.0.0 lets everyone in the network in (default: 127.0.0.1)",
    )
    add("--port", type=port, metavar="N", help="to listen at (default: the first free one from 7860)")
    upscale.model_options(parser)
    return parser


def serve(page: gr.Blocks, host: str, number: int | None, max_pixels: int) -> None:
    """Serve a page until Ctrl-C or SIGTERM.

    Raises:
        OSError: if the port is taken or the address not this computer's.
    """
    from fluxsr.app.upscale_page import CSS, THEME

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder goes then too
    try:
        page.launch(
            server_name=host,
            server_port=number,
            max_file_size=max_pixels * _BYTES_PER_PIXEL + 2**20,
            theme=THEME,
            css=CSS,
            # Each of these can be switched on by a variable of Gradio's.
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise OSError(
            f"can't listen at {host}:{number or '7860 to 7959'}: the port is taken, or the address is not of this computer; "
            "give another --port or --host"
        ) from error
    if host not in (LOOPBACK, "localhost", "::1"):
        print(f"fluxsr: warning: everyone who reaches {host} can use this page", file=sys.stderr)
    print(f"Page at {page.local_url} (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):  # a second one
        page.block_thread()


def port(text: str) -> int:
    """Parse the number of a port."""
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, got {text}")
    return value
