"""Makes training data: degradation, photo folders, teacher pairs and the datamodule that serves them.

Of fluxsr's other packages this one imports `fluxsr.images` alone. Names are imported on first use, so that
`import fluxsr.data` alone loads neither torch nor lightning.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.data.datamodule import SRDataModule
    from fluxsr.data.degradation import (
        BicubicDegradation,
        CameraDegradation,
        Degradation,
        DegradationMix,
        RealESRGANDegradation,
        SecondStageRanges,
        StageRanges,
        mild_degradation,
    )
    from fluxsr.data.folders import LRFolder, PairedFolders, PhotoFolder
    from fluxsr.data.pair_store import PairStore
    from fluxsr.data.samples import EpochSampler, LRBatch, SRBatch, sample_seed
    from fluxsr.data.teacher_pairs import TeacherPairs

_HOME = {
    "BicubicDegradation": "degradation",
    "CameraDegradation": "degradation",
    "Degradation": "degradation",
    "DegradationMix": "degradation",
    "EpochSampler": "samples",
    "LRBatch": "samples",
    "LRFolder": "folders",
    "PairStore": "pair_store",
    "PairedFolders": "folders",
    "PhotoFolder": "folders",
    "RealESRGANDegradation": "degradation",
    "SRBatch": "samples",
    "SRDataModule": "datamodule",
    "SecondStageRanges": "degradation",
    "StageRanges": "degradation",
    "TeacherPairs": "teacher_pairs",
    "mild_degradation": "degradation",
    "sample_seed": "samples",
}

__all__ = [
    "BicubicDegradation",
    "CameraDegradation",
    "Degradation",
    "DegradationMix",
    "EpochSampler",
    "LRBatch",
    "LRFolder",
    "PairStore",
    "PairedFolders",
    "PhotoFolder",
    "RealESRGANDegradation",
    "SRBatch",
    "SRDataModule",
    "SecondStageRanges",
    "StageRanges",
    "TeacherPairs",
    "mild_degradation",
    "sample_seed",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
