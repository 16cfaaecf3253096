"""Measures super-resolution so that numbers compare: metrics, benchmarks, the papers' tables, and a report.

Names are imported on first use; `import fluxsr.evaluation` alone loads nothing heavy.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.evaluation.ablation import run_ablation
    from fluxsr.evaluation.benchmarks import BENCHMARKS, Benchmark
    from fluxsr.evaluation.comparison import compare
    from fluxsr.evaluation.metrics import METRICS, Metric, Settings, load_metric
    from fluxsr.evaluation.report import write_report
    from fluxsr.evaluation.run import evaluate
    from fluxsr.evaluation.study import merge_votes, write_study
    from fluxsr.evaluation.systems import System, bicubic, folder_system, load_model
    from fluxsr.evaluation.tables import published_efficiency, published_results
    from fluxsr.evaluation.testset import TestSet, open_benchmark, open_folders

_HOME = {
    "BENCHMARKS": "benchmarks",
    "METRICS": "metrics",
    "Benchmark": "benchmarks",
    "Metric": "metrics",
    "Settings": "metrics",
    "System": "systems",
    "TestSet": "testset",
    "bicubic": "systems",
    "compare": "comparison",
    "evaluate": "run",
    "folder_system": "systems",
    "load_metric": "metrics",
    "merge_votes": "study",
    "write_study": "study",
    "load_model": "systems",
    "open_benchmark": "testset",
    "open_folders": "testset",
    "published_efficiency": "tables",
    "published_results": "tables",
    "run_ablation": "ablation",
    "write_report": "report",
}

__all__ = [
    "BENCHMARKS",
    "METRICS",
    "Benchmark",
    "Metric",
    "Settings",
    "System",
    "TestSet",
    "bicubic",
    "compare",
    "evaluate",
    "folder_system",
    "load_metric",
    "load_model",
    "merge_votes",
    "open_benchmark",
    "open_folders",
    "published_efficiency",
    "published_results",
    "run_ablation",
    "write_report",
    "write_study",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
