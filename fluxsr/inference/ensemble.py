"""Averages a model over shifts by half a token: more like the original and softer, without the tokens' grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fluxsr.protocols import VelocityModel

# A token is two latent positions wide, so these are all of its halves.
_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))


class ShiftedMean(nn.Module):
    """The mean velocity of four passes, each with the borders of the tokens in another place.

    What a model does differently from token to token averages out, and so does some of the detail that it adds. On six camera
    pairs the grid fell from 4.8 to 1.6 dB on our meter and PSNR-Y rose by 0.29 dB, but LPIPS rose from 0.266 to 0.294.
    """

    def __init__(self, velocity: VelocityModel) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Return the mean velocity at latents ``(B, C, h, w)`` and times ``(B,)``; four times the work."""
        height, width = xt.shape[-2:]
        total = torch.zeros_like(xt)
        for down, right in _SHIFTS:
            # As much on both sides, so that the sides stay even.
            moved = pad(xt, (right, right, down, down), mode="replicate")
            total += self.velocity(moved, t)[..., down : down + height, right : right + width]
        return total / len(_SHIFTS)
