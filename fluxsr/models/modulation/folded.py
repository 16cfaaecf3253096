"""Defines the transformers that :mod:`fluxsr.models.modulation.fold` makes: models whose modulation layers are constants.

In all else they are models of diffusers: ``save_pretrained``, ``from_pretrained`` with a ``quantization_config``,
``compile_repeated_blocks`` and pipelines work as ever. They hold their prompt, and refuse any other input than their own. A
constructor builds the whole model before it removes layers, so at full size it is called under ``torch.device("meta")``, as
``from_pretrained`` does.
"""

from __future__ import annotations

from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  # pipelines look for it beside a component's class
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

from fluxsr.models.families import FLUX1, FLUX2
from fluxsr.models.modulation.folding import Folded


class FoldedFluxTransformer(Folded, FluxTransformer2DModel):  # type: ignore[misc]  # so does diffusers combine classes
    """``FluxTransformer2DModel`` at one time, guidance and prompt, without the layers that only depend on these: 27 %."""

    family = FLUX1


class FoldedFlux2Transformer(Folded, Flux2Transformer2DModel):  # type: ignore[misc]  # so does diffusers combine classes
    """``Flux2Transformer2DModel`` at one time, guidance and prompt, without the layers that only depend on these.

    FLUX.2's blocks share their modulation, so that this saves 4 % of klein-4B; without text tokens the text stream goes, too,
    which is another 16 %.
    """

    family = FLUX2
