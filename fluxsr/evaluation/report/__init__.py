"""One HTML page from evaluations: everything inside, nothing loaded from anywhere."""

from fluxsr.evaluation.report.page import write_report

__all__ = ["write_report"]
