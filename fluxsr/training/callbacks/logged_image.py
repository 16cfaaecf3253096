"""A picture handed to whatever logger there is, by what it can do: no logger's package is imported."""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import Tensor


def log_image(logger: Any, name: str, image: Tensor, step: int) -> bool:
    """Hand a picture to a logger of Lightning; return whether it takes pictures.

    These do: a logger with ``log_image(key, images, step)`` (W&B); one whose ``experiment`` has
    ``add_image(name, tensor, step)`` (TensorBoard); or one whose ``experiment`` has ``log_image``, either with the
    ``run_id`` of the logger first (MLflow) or with the picture and its ``name`` (Comet).

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
