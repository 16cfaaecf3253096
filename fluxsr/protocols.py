"""Declares the two things that the library only calls: a velocity model and an autoencoder.

Both are plain protocols: nothing has to inherit from them. A lambda in a test, somebody's UNet and
:class:`fluxsr.models.FluxBackbone` are all velocity models.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class VelocityModel(Protocol):
    """Any callable ``velocity(xt, t) -> v``.

    Shapes:
        ``xt`` is ``(B, C, h, w)`` in normalized latents, ``t`` is ``(B,)`` float32 in ``[0, 1]`` with 0 at the data,
        and the result is shaped like ``xt``. The velocity is the derivative of the path with respect to ``t``, so it points
        away from the data: ``x1 - x0`` on a straight path.
    """

    def __call__(self, xt: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity at the state ``xt`` and time ``t``."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    """The map between images and normalized latents.

    Attributes:
        downsample: Image pixels along one side of a latent position (8 for FLUX's autoencoder).
        latent_channels: Channels of the latents (16 for FLUX's autoencoder).
    """

    downsample: int
    latent_channels: int

    def encode(self, image: Tensor, /) -> Tensor:
        """Map ``(B, 3, H, W)`` images in ``[0, 1]`` to ``(B, C, H / downsample, W / downsample)`` normalized latents."""
        ...

    def decode(self, latents: Tensor, /) -> Tensor:
        """Map normalized latents to ``(B, 3, H, W)`` images, nominally in ``[0, 1]`` and not clamped."""
        ...
