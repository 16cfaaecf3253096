"""Degradation, photo folders, teacher pairs and the datamodule that serves them.

This package knows no other room of fluxsr. Names are imported on first use, so that `import fluxsr.data` alone loads
neither torch nor lightning.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.data.datamodule import SRDataModule
    from fluxsr.data.degradation import BicubicDegradation, Degradation, RealESRGANDegradation
    from fluxsr.data.degradation_mix import DegradationMix
    from fluxsr.data.folders import LRFolder, PairedFolders, PhotoFolder
    from fluxsr.data.images import list_images, read_image, write_image
    from fluxsr.data.pair_store import PairStore
    from fluxsr.data.samples import EpochSampler, LRBatch, SRBatch, sample_seed
    from fluxsr.data.teacher_pairs import TeacherPairs

_HOME = {
    "BicubicDegradation": "degradation",
    "Degradation": "degradation",
    "DegradationMix": "degradation_mix",
    "EpochSampler": "samples",
    "LRBatch": "samples",
    "LRFolder": "folders",
    "PairStore": "pair_store",
    "PairedFolders": "folders",
    "PhotoFolder": "folders",
    "RealESRGANDegradation": "degradation",
    "SRBatch": "samples",
    "SRDataModule": "datamodule",
    "TeacherPairs": "teacher_pairs",
    "list_images": "images",
    "read_image": "images",
    "sample_seed": "samples",
    "write_image": "images",
}

__all__ = [
    "BicubicDegradation",
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
    "TeacherPairs",
    "list_images",
    "read_image",
    "sample_seed",
    "write_image",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
