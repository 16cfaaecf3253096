"""Loads ``NAME=module:function``, a metric of the user's own, from any module that Python can import or the current folder.

The function is called with images ``(1, 3, H, W)`` in ``[0, 1]`` on the device that is measured on, and returns one number.
How it is written says what it needs::

    def sharpness(sr_image):                 # one argument: no reference
        return sr_image.diff(dim=-1).abs().mean()

    def distance(sr_image, hr_image):        # two: there must be HR images
        return (sr_image - hr_image).abs().amax()

    distance.lower_is_better = True          # otherwise higher is better

It may also be a class, which is constructed without arguments, or a ``torch.nn.Module``, which is moved to the device.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.digest import file_digest

Measure = Callable[[Tensor, Tensor | None], float]


def load_own_metric(spec: str, place: str, device: str) -> tuple[Measure, dict[str, Any]]:
    """Return what measures, and the facts that a :class:`fluxsr.evaluation.Metric` is made of.

    ``spec`` is the user's text, ``place`` its part after the sign. A ValueError says what is wrong with them; in a call, that
    it fails or gives no number.
    """
    module_name, sign, attribute = place.partition(":")
    if not (spec.partition("=")[0] and module_name and sign and attribute):
        raise ValueError(f"a metric of your own is NAME=module:function, got {spec!r}")
    # As `python -m` does: whoever measures has the module at hand, not installed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
        function: Any = getattr(module, attribute)
        function = function() if isinstance(function, type) else function
    except (ImportError, AttributeError, TypeError) as error:  # a class is constructed without arguments
        raise ValueError(f"{spec}: {error}") from error
    if isinstance(function, nn.Module):
        function = function.to(device).eval()
    if not callable(function):
        raise ValueError(f"{spec}: {attribute} is a {type(function).__name__}, which can't be called")
    called = function.forward if isinstance(function, nn.Module) else function
    parameters = inspect.signature(called).parameters.values()
    images = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)
    if images not in (1, 2):
        raise ValueError(f"{spec}: it must take one image, or two with the reference, and takes {images}")

    @torch.inference_mode()
    def measure(sr_image: Tensor, hr_image: Tensor | None) -> float:
        given = [image.to(device) for image in (sr_image, hr_image)[:images] if image is not None]
        try:
            value = function(*given)
        except Exception as error:
            lines = traceback.extract_tb(error.__traceback__)
            within = [f"{line.filename}:{line.lineno}" for line in lines if line.filename == file] or [module_name]
            raise ValueError(f"{within[-1]} raised {type(error).__name__}: {error}") from error
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"it must give one number for an image, got {type(value).__name__} ({error})") from error

    file = getattr(module, "__file__", None)
    facts = {
        "lower_is_better": bool(getattr(function, "lower_is_better", False)),
        "needs_reference": images == 2,
        "decimals": int(getattr(function, "decimals", 4)),
        # When the module's file changes, values of an earlier version must be measured again.
        "source": f"{place}, {file_digest(file)[:12] if file else 'built in'}",
    }
    return measure, facts
