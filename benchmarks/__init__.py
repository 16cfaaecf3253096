"""Measurements of this machine, as ratios of one run: ``make bench``."""
