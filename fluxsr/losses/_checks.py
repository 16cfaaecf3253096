"""What all losses ask of their arguments. Nothing here looks at values: that would make a GPU wait for the CPU."""

from __future__ import annotations

from torch import Tensor


def check_images(sr_image: Tensor, hr_image: Tensor, *, channels: int | None = None) -> None:
    """Raise ValueError unless both are floating ``(B, C, H, W)`` of one shape, on one device, with B > 0."""
    for name, image in (("sr_image", sr_image), ("hr_image", hr_image)):
        if image.ndim != 4:
            raise ValueError(
                f"{name} must have shape (batch, channels, height, width), got {tuple(image.shape)}"
                + (": add a batch dimension, image[None]" if image.ndim == 3 else "")
            )
        if not image.is_floating_point():
            raise ValueError(f"{name} must be floating point in [0, 1], got {image.dtype}: divide by 255 first")
        if channels is not None and image.shape[1] != channels:
            raise ValueError(
                f"{name} must have {channels} channels, got {image.shape[1]} in shape {tuple(image.shape)}"
                + (": repeat a gray image with image.expand(-1, 3, -1, -1)" if image.shape[1] == 1 else "")
            )
    if sr_image.shape != hr_image.shape:
        raise ValueError(
            f"sr_image {tuple(sr_image.shape)} and hr_image {tuple(hr_image.shape)} must have one shape: "
            "resize or crop one of them first"
        )
    if sr_image.numel() == 0:
        raise ValueError(f"sr_image is empty: shape {tuple(sr_image.shape)}")
    if sr_image.device != hr_image.device:
        raise ValueError(f"sr_image is on {sr_image.device}, hr_image on {hr_image.device}: move one of them")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
