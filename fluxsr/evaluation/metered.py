"""Meters the calls of a model's parts, which an upscaler then uses in their place."""

from __future__ import annotations

from torch import Tensor

from fluxsr.evaluation.cost import CostMeter
from fluxsr.models import PixelAutoencoder
from fluxsr.protocols import Autoencoder, VelocityModel


class MeteredVelocity:
    """A velocity model whose calls are a stage of a meter."""

    def __init__(self, velocity: VelocityModel, meter: CostMeter) -> None:
        self.velocity = velocity
        self.meter = meter

    def __call__(self, xt: Tensor, t: Tensor) -> Tensor:
        """Return what the model returns."""
        with self.meter.stage("velocity"):
            return self.velocity(xt, t)


class MeteredPixels(PixelAutoencoder):
    """A :class:`fluxsr.models.PixelAutoencoder`, which the upscaler treats differently from others, with its stages metered."""

    def __init__(self, autoencoder: PixelAutoencoder, meter: CostMeter) -> None:
        super().__init__(autoencoder.downsample, autoencoder.shift, autoencoder.scale)
        self.meter = meter

    def encode(self, image: Tensor) -> Tensor:
        """Encode as it does."""
        with self.meter.stage("encode"):
            return super().encode(image)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode as it does."""
        with self.meter.stage("decode"):
            return super().decode(latents)


class MeteredAutoencoder:
    """Any other autoencoder, with its stages metered."""

    def __init__(self, autoencoder: Autoencoder, meter: CostMeter) -> None:
        self.autoencoder = autoencoder
        self.meter = meter
        self.downsample = autoencoder.downsample
        self.latent_channels = autoencoder.latent_channels

    def encode(self, image: Tensor) -> Tensor:
        """Encode as it does."""
        with self.meter.stage("encode"):
            return self.autoencoder.encode(image)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode as it does."""
        with self.meter.stage("decode"):
            return self.autoencoder.decode(latents)


def metered(autoencoder: Autoencoder, meter: CostMeter) -> Autoencoder:
    """Return an autoencoder with its stages metered, of the kind that it is."""
    if isinstance(autoencoder, PixelAutoencoder):
        return MeteredPixels(autoencoder, meter)
    return MeteredAutoencoder(autoencoder, meter)
