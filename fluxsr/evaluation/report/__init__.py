"""Makes one HTML page from evaluations, which loads nothing from anywhere."""

from fluxsr.evaluation.report.page import Stage, write_report

__all__ = ["Stage", "write_report"]
