"""Measures super-resolution so that numbers compare: metrics, benchmarks, the papers' tables, and a report.

Names are imported on first use; `import fluxsr.evaluation` alone loads nothing heavy.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.evaluation.ablation import run_ablation as run_ablation
    from fluxsr.evaluation.benchmarks import (
        BENCHMARKS as BENCHMARKS,
        Benchmark as Benchmark,
    )
    from fluxsr.evaluation.comparison import compare as compare
    from fluxsr.evaluation.metrics import (
        METRICS as METRICS,
        Metric as Metric,
        Settings as Settings,
        load_metric as load_metric,
    )
    from fluxsr.evaluation.report import write_report as write_report
    from fluxsr.evaluation.run import evaluate as evaluate
    from fluxsr.evaluation.study import (
        merge_votes as merge_votes,
        write_study as write_study,
    )
    from fluxsr.evaluation.systems import (
        System as System,
        bicubic as bicubic,
        folder_system as folder_system,
        load_model as load_model,
    )
    from fluxsr.evaluation.tables import (
        published_efficiency as published_efficiency,
        published_results as published_results,
    )
    from fluxsr.evaluation.testset import (
        TestSet as TestSet,
        open_benchmark as open_benchmark,
        open_folders as open_folders,
    )

__getattr__, __dir__, __all__ = lazy_names(__name__)
