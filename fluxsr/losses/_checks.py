"""Checks the arguments of all losses.

Shapes and dtypes are looked at in every call, values in the first one only: looking makes a GPU wait for the CPU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

# Far above what an untrained network makes of images in [0, 1], far below 8-bit values.
HIGHEST = 16.0
# What resizing and a decoder may leave below 0 in a photo, and what a network may in its output.
LOWEST_REFERENCE, LOWEST_OUTPUT = -0.25, -0.75


def check_images(sr_image: Tensor, hr_image: Tensor, *, channels: int | None = None) -> None:
    """Raise ValueError unless both are floating ``(B, C, H, W)`` of one shape, on one device, with B > 0."""
    for name, image in (("sr_image", sr_image), ("hr_image", hr_image)):
        check_tensor(name, image)
        if image.ndim != 4:
            hint = _dimensions_hint(tuple(image.shape))
            raise ValueError(f"{name} must have shape (batch, channels, height, width), got {tuple(image.shape)}{hint}")
        if not image.is_floating_point():
            raise ValueError(f"{name} must be floating point in [0, 1], got {image.dtype}: divide by 255 first")
        if channels is not None and image.shape[1] != channels:
            shape = tuple(image.shape)
            raise ValueError(f"{name} must have {channels} channels, got {shape[1]} in {shape}{_channels_hint(shape)}")
    ours, theirs = tuple(sr_image.shape), tuple(hr_image.shape)
    if ours != theirs:
        raise ValueError(f"sr_image {ours} and hr_image {theirs} must have one shape: resize or crop one of them")
    if sr_image.numel() == 0:
        raise ValueError(f"sr_image is empty: shape {tuple(sr_image.shape)}")
    if sr_image.device != hr_image.device:
        raise ValueError(f"sr_image is on {sr_image.device}, hr_image on {hr_image.device}: move one of them")


def check_tensor(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a tensor, saying how it becomes one."""
    if isinstance(value, Tensor):
        return
    kind, advice = type(value).__name__, "convert it first"
    if isinstance(value, dict):
        advice = f"hand over one of its values ({', '.join(map(str, value))})"
    elif isinstance(value, tuple | list):
        advice = "hand over one of its elements, or torch.stack them"
    elif kind == "ndarray":
        advice = "torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 makes one of an 8-bit (H, W, 3) array"
    raise ValueError(f"{name} must be a tensor, got {kind}: {advice}")


def in_transform() -> bool:
    """Say whether a transform of ``torch.func`` is at work: then values can't be looked at."""
    return bool(torch._C._are_functorch_transforms_active())


def _hidden(tensor: Tensor) -> bool:
    return torch.compiler.is_compiling() or tensor.is_meta or in_transform()


class FirstBatch:
    """Looks at the values of the first images that a loss is called with: no dtype shows whether they are in [0, 1].

    Networks may leave [0, 1], so only what no image in that range explains is refused, and a range of [-1, 1] is said in a
    warning. Nothing is looked at while a compiler traces, inside ``torch.func`` or on the meta device, where there are
    no values.
    """

    def __init__(self) -> None:
        self.seen = self.mask_seen = False

    def mask(self, mask: Tensor | None) -> None:
        """Raise ValueError if a weight of the first mask is negative or no number: a mean by such weights means nothing."""
        if mask is None or self.mask_seen or mask.dtype == torch.bool or _hidden(mask):
            return
        lowest = mask.detach().amin().item()
        if not lowest >= 0:
            raise ValueError(f"a mask holds weights of the pixels, 0 or more, got {lowest:g}: clamp it")
        self.mask_seen = True

    def __call__(self, sr_image: Tensor, hr_image: Tensor | None = None) -> None:
        """Raise ValueError if a value of the images ``(B, C, H, W)`` is above 16; warn if they seem to be in [-1, 1].

        A network's output may be far below 0 while it learns, so the reference decides where there is one.
        """
        if self.seen or _hidden(sr_image):
            return
        judge, floor = (sr_image, LOWEST_OUTPUT) if hr_image is None else (hr_image, LOWEST_REFERENCE)
        looked_at = [-judge.detach().amin().float()]
        looked_at += [image.detach().amax().float() for image in (sr_image, hr_image) if image is not None]
        # One transfer for all; a NaN is not above anything.
        below, *highest = torch.stack(looked_at).tolist()
        if max(highest) > HIGHEST:
            raise ValueError(f"images are expected in [0, 1], got values up to {max(highest):.1f}: divide by 255")
        if -below < floor:
            warnings.warn(
                f"images are expected in [0, 1], got values down to {-below:.2f}: of images in [-1, 1], as diffusers has "
                "them, hand over (x + 1) / 2",
                stacklevel=5,
            )
        self.seen = True


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def _dimensions_hint(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return ""
    if shape[-1] in (3, 4) and shape[0] not in (1, 3, 4):
        return ": it looks like (height, width, channels), image.permute(2, 0, 1)[None]"
    return ": add a batch dimension, image[None]"


def _channels_hint(shape: tuple[int, ...]) -> str:
    if shape[1] == 1:
        return ": repeat a gray image with image.expand(-1, 3, -1, -1)"
    if shape[1] == 4:
        return ": leave out the alpha channel, image[:, :3]"
    if shape[-1] in (3, 4):
        return ": channels come second, image.permute(0, 3, 1, 2)" + ("[:, :3] without alpha" if shape[-1] == 4 else "")
    return ""
