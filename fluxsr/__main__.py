"""Runs the ``fluxsr`` command for ``python -m fluxsr``."""

from fluxsr.cli.main import main

if __name__ == "__main__":
    main()
