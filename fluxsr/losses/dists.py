"""Implements DISTS (Ding et al. 2020, "Image Quality Assessment: Unifying Structure and Texture Similarity")."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.losses._reduction import Reduction
from fluxsr.losses.backbones import CHANNELS, SMALLEST_SIDE, FeatureTower, load_tower
from fluxsr.losses.network import NetworkLoss, WeightedView
from fluxsr.losses.weights import DISTS_HEADS, built_exactly, load_weights, without_values

# The image itself is the first of the six maps that are compared.
_WIDTHS = (3, *CHANNELS["vgg"])
# The paper's c1 and c2: they keep flat maps from being divided by nothing.
_STABILIZER = 1e-6


class L2Pool(nn.Module):
    """Halve a map by a weighted L2 norm over a 3x3 Hann window instead of by a maximum (the paper's eq. 3).

    Shape: ``(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))``.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        window = torch.hann_window(5, periodic=False)[1:-1]
        kernel = torch.outer(window, window)
        self.channels = channels
        self.register_buffer("kernel", (kernel / kernel.sum()).expand(channels, 1, 3, 3).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the halved map."""
        pooled = F.conv2d(x.square(), self.kernel, stride=2, padding=1, groups=self.channels)
        return (pooled + 1e-12).sqrt()  # a slope at 0; the published weights were fitted with this constant


class DISTSNet(nn.Module):
    """``net(x, y) -> 1 - sum_j (alpha_j l_j + beta_j s_j)`` over the channels j of the image and of five VGG stages.

    ``l_j`` compares the means of a channel (texture), ``s_j`` its covariance (structure); eq. 4 to 6 of the paper.

    Shape: two ``(B, 3, H, W)`` images in [0, 1] to ``(B, 1, 1, 1)``. Range: 0 for equal images, about 1 at most.
    """

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, tower: FeatureTower, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            if value.numel() != sum(_WIDTHS):
                raise ValueError(f"DISTS' {name} must hold {sum(_WIDTHS)} values, got shape {tuple(value.shape)}")
        self.tower = tower
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", alpha.flatten() / total)
        self.register_buffer("beta", beta.flatten() / total)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    @classmethod
    def load(cls, weights: str | Path | None = None, heads: str | Path | None = None) -> DISTSNet:
        """Read VGG16 and alpha and beta; see :class:`DISTSLoss`."""

        def build() -> DISTSNet:
            if without_values():
                return cls(load_tower("vgg", pool=L2Pool), *torch.empty(2, sum(_WIDTHS)))
            state = load_weights(DISTS_HEADS, heads)
            if not {"alpha", "beta"} <= state.keys():
                raise ValueError(f"DISTS' weights need the names alpha and beta, got {', '.join(sorted(state))}")
            return cls(load_tower("vgg", weights, pool=L2Pool), state["alpha"], state["beta"])

        return built_exactly(build).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of each pair, ``(B, 1, 1, 1)``."""
        smallest = SMALLEST_SIDE["vgg"]
        if min(x.shape[-2:]) < smallest:
            raise ValueError(f"DISTS needs sides of at least {smallest} pixels, got {tuple(x.shape)}")
        x_maps = [x, *(one.to(x.dtype) for one in self.tower((x - self.mean) / self.std))]
        y_maps = [y, *(one.to(y.dtype) for one in self.tower((y - self.mean) / self.std))]
        similarity = x.new_zeros(x.shape[0])
        for x_map, y_map, alpha, beta in zip(
            x_maps, y_maps, self.alpha.split(_WIDTHS), self.beta.split(_WIDTHS), strict=True
        ):
            x_mean, y_mean = x_map.mean((2, 3)), y_map.mean((2, 3))
            x_rest, y_rest = x_map - x_mean[..., None, None], y_map - y_mean[..., None, None]
            texture = (2 * x_mean * y_mean + _STABILIZER) / (x_mean.square() + y_mean.square() + _STABILIZER)
            covariance = (x_rest * y_rest).mean((2, 3))
            variances = x_rest.square().mean((2, 3)) + y_rest.square().mean((2, 3))
            structure = (2 * covariance + _STABILIZER) / (variances + _STABILIZER)
            similarity = similarity + (alpha * texture + beta * structure).sum(dim=1)
        return (1 - similarity).view(-1, 1, 1, 1)


class DISTSLoss(NetworkLoss):
    """DISTS between two images: ``(sr_image, hr_image) -> scalar``, images in [0, 1].

    It compares statistics of whole images, so it takes no mask.

    Args:
        weights: File or folder of VGG16's weights; None: ``FLUXSR_WEIGHTS``, torch hub's cache, a download.
        heads: File or folder of DISTS' alpha and beta (``dists*/weights.pt`` or ``dists_weights*.pt``); None: the same
            places, except that they can't be downloaded. They are in the authors' package:
            ``pip install --no-deps --target FOLDER dists-pytorch`` puts them into a folder that ``FLUXSR_WEIGHTS`` can name.
        double_backward: Allow the gradient to be differentiated again.
        compute_dtype: ``"bfloat16"`` runs the convolutions in half the memory, and faster where the hardware has it; statistics
            are compared in float32. For training; measure with the default, float32.
        reduction: ``"mean"`` over the images of a batch, their ``"sum"``, or ``"none"``: one value for each, ``(B,)``.

    Raises:
        FileNotFoundError: Weights not found; the message lists the places.
        ValueError: A file that holds something else.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        heads: str | Path | None = None,
        *,
        double_backward: bool = False,
        compute_dtype: str | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        views = (WeightedView(1.0, nn.Identity()),)
        net = DISTSNet.load(weights, heads)
        super().__init__(net, views, double_backward=double_backward, compute_dtype=compute_dtype, reduction=reduction)
