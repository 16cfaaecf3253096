"""Logs a picture with whatever logger there is, by its methods: no logger's package is imported."""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import Tensor


def log_image(logger: Any, name: str, image: Tensor, step: int) -> bool:
    """Hand a picture to a logger of Lightning; return whether it takes pictures.

    Three kinds do. W&B's logger has ``log_image(key, images, step)``. TensorBoard's ``experiment`` has
    ``add_image(name, tensor, step)``. MLflow's and Comet's ``experiment`` have ``log_image``: MLflow's takes the ``run_id`` of
    the logger first, Comet's the picture and its ``name``.

    Args:
        logger: The logger.
        name: Name of the picture, the same at each step.
        image: Picture, ``(3, H, W)`` in ``[0, 1]``, on the CPU.
        step: Optimizer step that it belongs to.
    """
    own = getattr(logger, "log_image", None)
    if callable(own):
        own(key=name, images=[_pillow(image)], step=step)
        return True
    experiment = getattr(logger, "experiment", None)
    add = getattr(experiment, "add_image", None)
    if callable(add):
        add(name, image, step)
        return True
    log = getattr(experiment, "log_image", None)
    if not callable(log):
        return False
    if "run_id" in signature(log).parameters:
        log(logger.run_id, _pillow(image), key=name, step=step)
    else:
        log(_pillow(image), name=name, step=step)
    return True


def _pillow(image: Tensor) -> Any:
    """Return an image of Pillow's, which every service takes."""
    from PIL import Image

    return Image.fromarray(image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy())
