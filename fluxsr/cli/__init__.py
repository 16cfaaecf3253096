"""Holds the ``fluxsr`` commands, one per file. Nothing else imports them."""
