"""Serves the page of `fluxsr app` from this computer."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

    from fluxsr.inference.upscaler import Upscaler

LOOPBACK = "127.0.0.1"
# An upload may be this large for each pixel: 16-bit RGBA, uncompressed.
_BYTES_PER_PIXEL = 8


def serve_upscaling(
    host: str = "127.0.0.1",
    port: int | None = None,
    max_pixels: int = 100_000_000,
    *,
    name: str,
    load: Callable[[], Upscaler],
) -> None:
    """Serve a page on this computer: drop a photo, compare before and after, download the result.

    Args:
        host: Address to listen at; 0.0.0.0 lets everyone in the network in.
        port: Port to listen at (default: the first free one from 7860).
        max_pixels: Limit on inputs and results; 2e8 is 200 million (default: 1e8).
        name: Name of the model on the page.
        load: Returns the upscaler, once the page is known to be possible.

    Raises:
        ValueError: If Gradio is missing.
        OSError: If the port is taken or the address not this computer's.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read on import: nothing is counted or looked up elsewhere
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("the page needs Gradio: pip install 'fluxsr[app]'") from error
    upscaler = load()
    with tempfile.TemporaryDirectory(prefix="fluxsr-app-") as folder:
        # Where Gradio keeps uploads and results. A folder of our own is gone, and all in it, when the page ends.
        os.environ["GRADIO_TEMP_DIR"] = folder
        from fluxsr.app.upscale_page import make_page

        serve(make_page(upscaler, name, Path(folder), max_pixels), host, port, max_pixels)


def serve(page: gr.Blocks, host: str, number: int | None, max_pixels: int) -> None:
    """Serve a page until Ctrl-C or SIGTERM."""
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
