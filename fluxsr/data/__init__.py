"""Makes training data: degradation, photo folders, teacher pairs and the datamodule that serves them.

Of fluxsr's other packages this one imports `fluxsr.images` alone. Names are imported on first use, so that
`import fluxsr.data` alone loads neither torch nor lightning.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.data.datamodule import SRDataModule as SRDataModule
    from fluxsr.data.degradation import (
        BicubicDegradation as BicubicDegradation,
        CameraDegradation as CameraDegradation,
        Degradation as Degradation,
        DegradationMix as DegradationMix,
        RealESRGANDegradation as RealESRGANDegradation,
        SecondStageRanges as SecondStageRanges,
        StageRanges as StageRanges,
        mild_degradation as mild_degradation,
    )
    from fluxsr.data.folders import (
        LRFolder as LRFolder,
        PairedFolders as PairedFolders,
        PhotoFolder as PhotoFolder,
    )
    from fluxsr.data.pair_store import PairStore as PairStore
    from fluxsr.data.samples import (
        EpochSampler as EpochSampler,
        LRBatch as LRBatch,
        SRBatch as SRBatch,
        sample_seed as sample_seed,
    )
    from fluxsr.data.teacher_pairs import TeacherPairs as TeacherPairs

__getattr__, __dir__, __all__ = lazy_names(__name__)
