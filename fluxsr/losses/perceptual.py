"""Implements LPIPS, TV-LPIPS, and squared error with LPIPS, on images in [0, 1]."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor, nn

from fluxsr.losses._reduction import Reduction, check_reduction
from fluxsr.losses.functional import mse, total_variation_map
from fluxsr.losses.network import NetworkLoss, WeightedView

NETWORKS = ("vgg", "alex", "squeeze", "nano")


def load_network(
    net: str | nn.Module = "vgg", weights: str | Path | None = None, *, double_backward: bool = False
) -> nn.Module:
    """A frozen perceptual network, called ``net(x, y)`` on [-1, 1] images, returning ``(B, 1, 1, 1)``.

    Args:
        net: ``"vgg"``, ``"alex"``, ``"squeeze"`` (LPIPS v0.1), ``"nano"`` (ships with the package, needs no download;
            trained to rank as LPIPS-VGG does), or a module that is returned as it is.
        weights: File or folder of the backbone's weights. None: the folder that ``FLUXSR_WEIGHTS`` names, torch hub's
            cache, then a download; for ``"nano"`` the shipped file.
        double_backward: See :class:`TVLPIPSLoss`.

    Raises:
        ValueError: An unknown name, weights of another network, or ``weights`` for a module.
        FileNotFoundError: No weights; the message lists where they were looked for.
    """
    if isinstance(net, nn.Module):
        if weights is not None:
            raise ValueError(f"weights={str(weights)!r} go with a name such as net='vgg', not with a module")
        return net
    if net == "nano":
        from fluxsr.losses.perceptual_nano import load_perceptual_nano

        return load_perceptual_nano(weights)
    if net in NETWORKS:
        from fluxsr.losses.lpips_net import LPIPSNet

        return LPIPSNet.load(net, weights, double_backward=double_backward)
    raise ValueError(f"net={net!r} is unknown: choose {', '.join(map(repr, NETWORKS))}, or hand over a module")


class LPIPSLoss(NetworkLoss):
    """LPIPS (Zhang et al. 2018) between two images.

    Args:
        net, weights: Network and its weights, as for :func:`load_network`. The network is frozen, a module of yours too.
        double_backward: Allow the gradient to be differentiated again, at about twice the memory.
        compute_dtype: ``"bfloat16"`` runs the convolutions in half the memory, and faster where the hardware has it. With VGG
            the distance moves by 0.1 %, and the cosine between the gradients is 0.93 to 0.99. For training; measure with the
            default, float32.
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.
    """

    def __init__(
        self,
        net: str | nn.Module = "vgg",
        weights: str | Path | None = None,
        *,
        double_backward: bool = False,
        compute_dtype: str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        network = load_network(net, weights, double_backward=double_backward)
        views = (WeightedView(1.0, _to_signed),)
        super().__init__(
            network, views, double_backward=double_backward, compute_dtype=compute_dtype, reduction=reduction
        )


class TVLPIPSLoss(NetworkLoss):
    """``LPIPS(x, y) + weight_tv * LPIPS(TV(x), TV(y))`` (FluxSR eq. 19).

    The TV map (eq. 20) of a [0, 1] image lies in [0, 2], and the network expects [-1, 1], so it gets ``TV - 1``. That map
    is fixed, the same for every batch (our default; the paper doesn't say).

    Args:
        weight_tv: The paper's gamma, not published; 0.5 is our default. 0 leaves the second pass out.
        net, weights: Network and its weights, as for :func:`load_network`; eq. 19 with VGG is our default.
        double_backward: Allow the gradient to be differentiated again. The default computes it in the forward pass,
            which takes half the memory.
        compute_dtype: See :class:`LPIPSLoss`.
        reduction: See :class:`LPIPSLoss`.

    Raises:
        ValueError: ``weight_tv`` is negative or not finite; otherwise as :func:`load_network`.
    """

    def __init__(
        self,
        weight_tv: float = 0.5,
        net: str | nn.Module = "vgg",
        weights: str | Path | None = None,
        *,
        double_backward: bool = False,
        compute_dtype: str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        if isinstance(weight_tv, bool) or not isinstance(weight_tv, (int, float)):
            raise ValueError(f"weight_tv={weight_tv!r} must be a number; the network is the second argument, net=...")
        if not (math.isfinite(weight_tv) and weight_tv >= 0):
            raise ValueError(f"weight_tv={weight_tv} must be 0 or more")
        views = [WeightedView(1.0, _to_signed)]
        if weight_tv > 0:
            views.append(WeightedView(float(weight_tv), _tv_to_signed))
        network = load_network(net, weights, double_backward=double_backward)
        super().__init__(
            network, tuple(views), double_backward=double_backward, compute_dtype=compute_dtype, reduction=reduction
        )
        self.weight_tv = weight_tv

    def extra_repr(self) -> str:
        """Show the constructor's arguments."""
        return f"weight_tv={self.weight_tv}"


class MSELPIPSLoss(nn.Module):
    """``MSE(x, y) + weight_lpips * LPIPS(x, y)``: FlowSR's distance of decoded images, "l2 + LPIPS".

    Args:
        weight_lpips: The paper's lambda_p, not published; 1 is our default.
        net, weights: Network and its weights, as for :func:`load_network`.
        double_backward: See :class:`TVLPIPSLoss`.
        compute_dtype: See :class:`LPIPSLoss`.
        reduction: See :class:`LPIPSLoss`.

    Raises:
        ValueError: ``weight_lpips`` isn't positive; otherwise as :func:`load_network`.
    """

    def __init__(
        self,
        weight_lpips: float = 1.0,
        net: str | nn.Module = "vgg",
        weights: str | Path | None = None,
        *,
        double_backward: bool = False,
        compute_dtype: str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not (math.isfinite(weight_lpips) and weight_lpips > 0):
            raise ValueError(f"weight_lpips={weight_lpips} must be positive; for squared error alone take MSELoss")
        check_reduction(reduction)
        self.weight_lpips = weight_lpips
        self.reduction = reduction
        self.lpips = LPIPSLoss(
            net, weights, double_backward=double_backward, compute_dtype=compute_dtype, reduction=reduction
        )

    def forward(self, sr_image: Tensor, hr_image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of two ``(B, 3, H, W)`` images in [0, 1], weighed by a mask ``(B or 1, 1, H, W)`` if there is one."""
        squared = mse(sr_image, hr_image, mask=mask, reduction=self.reduction)
        return squared + self.weight_lpips * self.lpips(sr_image, hr_image, mask)

    def extra_repr(self) -> str:
        """Show the constructor's arguments."""
        return f"weight_lpips={self.weight_lpips}"


def _to_signed(image: Tensor) -> Tensor:
    return image * 2 - 1


def _tv_to_signed(image: Tensor) -> Tensor:
    return total_variation_map(image) - 1
