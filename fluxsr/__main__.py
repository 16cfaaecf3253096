"""``python -m fluxsr`` is the ``fluxsr`` command."""

from fluxsr.cli.main import main

if __name__ == "__main__":
    main()
