"""One HTML page from evaluations: everything inside, nothing loaded from anywhere."""

from fluxsr.evaluation.report.page import Stage, write_report

__all__ = ["Stage", "write_report"]
