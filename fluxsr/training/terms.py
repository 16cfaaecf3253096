"""Defines loss terms: a loss, its input (images, latents or features), its weight and how often it is due."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fluxsr.flows import FlowOutput
from fluxsr.models.weight_files import whole

FLOW = "flow"  # the objective's own name among the terms


class StepOutputs:
    """The outputs of one training step, for the loss terms. Images are decoded on demand, once per crop size.

    Args:
        flow: Output of the objective.
        hr_image: The photos of the whole batch, ``(B, 3, H, W)`` in ``[0, 1]``, which every estimate is compared with that says
            which rows it belongs to; ``None``: targets are decoded when asked for.
        decode: Latents to images.
        downsample: Image pixels along one side of a latent position.
        passes: Features of each velocity call that was recorded, in their order.
        generator: Places the crops.
    """

    def __init__(
        self,
        flow: FlowOutput,
        hr_image: Tensor | None,
        decode: Callable[[Tensor], Tensor],
        downsample: int,
        passes: Sequence[Sequence[Tensor]] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.flow = flow
        self.passes = passes
        self._hr_image = hr_image
        self._decode = decode
        self._downsample = downsample
        self._generator = generator
        self._decoded: dict[int | None, tuple[Tensor, Tensor]] = {}

    def restoration_features(self) -> Sequence[Tensor]:
        """Return the features of the velocity call that made ``x0_hat``, as the objective's output names it."""
        index, calls = self.flow.restoration_pass, len(self.passes)
        if index is None and calls == 1:
            index = 0
        if index is None or not 0 <= index < calls:
            raise ValueError(
                f"the objective called the velocity model {calls} times and its restoration_pass is {index}: return "
                "FlowOutput(..., restoration_pass=i), counted from 0"
            )
        return self.passes[index]

    def images(self, crop: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(sr_image, hr_image)``; with ``crop``, of one random square of so many image pixels a side.

        Only the crop is decoded, with gradient: the decoder in the loss is what fills the memory.
        """
        if crop not in self._decoded:
            photos = self._hr_image
            if photos is not None and self.flow.rows is not None:
                photos = photos[self.flow.rows]
            self._decoded[crop] = self._cropped(self.flow.x0_hat, self.flow.x0_target, photos, crop)
        return self._decoded[crop]

    def estimated_images(self, crop: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return ``(sr_image, hr_image)`` of each of the objective's further estimates, as :meth:`images` does."""
        found = []
        for number, (x0_hat, x0_target) in enumerate(self.flow.estimates):
            photos = self._hr_image
            if photos is not None:
                photos = photos[self.flow.estimate_rows[number]] if self.flow.estimate_rows else None
            found.append(self._cropped(x0_hat, x0_target, photos, crop))
        return found

    def _cropped(
        self, x0_hat: Tensor, x0_target: Tensor, hr_image: Tensor | None, crop: int | None
    ) -> tuple[Tensor, Tensor]:
        if crop is not None:
            d = self._downsample
            size = max(1, crop // d)
            top, left = (self._place(side, size) for side in x0_hat.shape[-2:])
            window = (..., slice(top, top + size), slice(left, left + size))
            x0_hat, x0_target = x0_hat[window], x0_target[window]
            if hr_image is not None:
                hr_image = hr_image[..., top * d : (top + size) * d, left * d : (left + size) * d]
        if hr_image is None:
            with torch.no_grad():
                hr_image = self._decode(x0_target).clamp(0, 1)
        return self._decode(x0_hat), hr_image

    def _place(self, length: int, size: int) -> int:
        return int(torch.randint(max(length - size, 0) + 1, (1,), generator=self._generator))


class LossTerm(nn.Module, ABC):
    """One named, weighted term of the training loss.

    Args:
        loss: The module that measures.
        weight: Multiplier in the total.
        every: The term counts in every so many optimizer steps only.

    Raises:
        ValueError: If ``weight`` is negative or ``every`` below 1.
    """

    def __init__(self, loss: nn.Module, weight: float = 1.0, every: int = 1) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.loss = loss
        self.weight = weight
        self.every = every

    def due(self, step: int) -> bool:
        """Say whether the term counts in this optimizer step; a weight of zero never does, and costs nothing."""
        return self.weight > 0 and step % self.every == 0

    @abstractmethod
    def forward(self, outputs: StepOutputs) -> Tensor:
        """Return the unweighted value, a scalar."""


class ImageTerm(LossTerm):
    """A loss on images: ``loss(sr_image, hr_image)``, both ``(B, 3, H, W)``, nominally in ``[0, 1]``.

    Args:
        loss: Any module of two images, for example :class:`fluxsr.losses.TVLPIPSLoss`.
        weight, every: See :class:`LossTerm`.
        crop: Decode and compare only a random square of so many pixels a side; ``None``: the whole image.
        estimates: Look at the objective's further estimates too (:class:`fluxsr.flows.ConsistencySRFlow` has one), and return
            the mean over all.
    """

    def __init__(
        self, loss: nn.Module, weight: float = 1.0, every: int = 1, crop: int | None = None, estimates: bool = False
    ) -> None:
        super().__init__(loss, weight, every)
        if crop is not None and crop < 1:
            raise ValueError(f"crop must be at least 1 pixel, or null for the whole image, got {crop}")
        self.crop = crop
        self.estimates = estimates

    def forward(self, outputs: StepOutputs) -> Tensor:
        """Decode and compare."""
        pairs = [outputs.images(self.crop)]
        if self.estimates:
            pairs += outputs.estimated_images(self.crop)
        return torch.stack([self.loss(sr_image, hr_image) for sr_image, hr_image in pairs]).mean()


class LatentTerm(LossTerm):
    """A loss on latents: ``loss(x0_hat, x0_target)``, both ``(B, C, h, w)``; nothing is decoded. See :class:`LossTerm`."""

    def forward(self, outputs: StepOutputs) -> Tensor:
        """Compare the latents."""
        return self.loss(outputs.flow.x0_hat, outputs.flow.x0_target)


class FeatureTerm(LossTerm):
    """A loss on the backbone's layer outputs: ``loss(features)``, a list of ``(B, N, D)``, one per layer.

    Args:
        loss: Loss of the features, for example :class:`fluxsr.losses.AttentionDiversificationLoss`.
        weight, every: See :class:`LossTerm`.
        passes: Velocity calls of the step that feed it. FluxSR's figure taps the restoration pass, which is the default;
            ``all`` takes every call.
        layers: Blocks that feed it, counted from the first double-stream block; negative from the end; all by default.
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float = 1.0,
        every: int = 1,
        passes: Literal["restoration", "all"] = "restoration",
        layers: list[int] | None = None,
    ) -> None:
        super().__init__(loss, weight, every)
        if passes not in ("restoration", "all"):
            raise ValueError(f"passes must be 'restoration' or 'all', got {passes!r}")
        self.passes = passes
        self.layers = layers

    def forward(self, outputs: StepOutputs) -> Tensor:
        """Pick the passes and layers, and measure."""
        passes = outputs.passes if self.passes == "all" else [outputs.restoration_features()]
        chosen = [one if self.layers is None else [one[i] for i in self.layers] for one in passes]
        return self.loss([feature for one in chosen for feature in one])


def gradient_norms(terms: Mapping[str, tuple[float, Tensor]], parameters: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the norm of each weighted term's gradient over all parameters; ``terms`` are ``(weight, value)`` by name."""
    parameters, norms = list(parameters), {}
    for name, (weight, value) in terms.items():
        gradients = torch.autograd.grad(weight * value, parameters, retain_graph=True, allow_unused=True)
        used = [whole(gradient.float().norm()) for gradient in gradients if gradient is not None]
        norms[name] = torch.stack(used).norm() if used else value.new_zeros(())
    return norms


class OnImages:
    """An image distance as one of latents, which it decodes: a :class:`fluxsr.flows.objective.ImageDistance`."""

    def __init__(self, distance: nn.Module, decode: Callable[[Tensor], Tensor]) -> None:
        self.distance = distance
        self.decode = decode

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Decode two latents and compare the images."""
        return self.distance(self.decode(a), self.decode(b))

    def to_photos(self, estimate: Tensor, hr_image: Tensor) -> Tensor:
        """Decode an estimate and compare it with the photos."""
        return self.distance(self.decode(estimate), hr_image)
