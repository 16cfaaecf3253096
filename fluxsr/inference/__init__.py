"""Upscales photos: any size, any scale, bounded memory. It imports models and flows, not training.

Names are imported on first use. Reading and writing picture files is `fluxsr.images`.
"""

from typing import TYPE_CHECKING

from fluxsr.lazy import lazy_names

if TYPE_CHECKING:
    from fluxsr.inference.batch import (
        Outcome as Outcome,
        upscale_files as upscale_files,
    )
    from fluxsr.inference.export import (
        ExportedModel as ExportedModel,
        export_model as export_model,
    )
    from fluxsr.inference.pipeline import FluxSRPipeline as FluxSRPipeline
    from fluxsr.inference.upscaler import Upscaler as Upscaler

__getattr__, __dir__, __all__ = lazy_names(__name__)
