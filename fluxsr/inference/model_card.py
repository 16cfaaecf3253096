"""Writes model cards: what a saved model is, how to use it, and the license that its base gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxsr.models import FLUX_ARCHITECTURES
from fluxsr.models.known_names import SHIPPED
from fluxsr.models.licenses import license_of as license_of  # the app asks here

FLUX_DEV = "black-forest-labs/FLUX.1-dev"


def base_model_of(model: str, config: Mapping[str, Any]) -> str:
    """Return the public name of the base that ``model`` is: a hub id, ``nano``, or a folder's own name, without its path.

    Args:
        model: Name or path of the loaded model.
        config: Configuration of its transformer. With FLUX.1-dev's own, it is that or made from it.
    """
    if model in SHIPPED or _is(config, "nano", but="num_single_layers"):  # the student is nano made deeper
        return "nano"
    if not Path(model).exists():
        return model
    return FLUX_DEV if _is(config, "flux.1-dev") else Path(model).resolve().name


def _is(config: Mapping[str, Any], name: str, but: str = "") -> bool:
    """Say whether a configuration is the named architecture's, whatever it has at the key ``but``."""
    own = FLUX_ARCHITECTURES[name]
    found = ((config.get(key), value) for key, value in own.items() if key != but)
    return all((list(one) if isinstance(one, tuple) else one) == value for one, value in found)


def model_card(
    base_model: str,
    *,
    start_time: float,
    trained: str = "",
    folded: bool = False,
    dtype: str = "float32",
    name: str = "PATH_OR_ID",
) -> str:
    """Return the text of a ``README.md`` for a saved :class:`fluxsr.inference.pipeline.FluxSRPipeline`.

    Args:
        base_model: Hub id of the base, or ``nano``.
        start_time: Time of the LR latents that the model was trained with.
        trained: How: data, steps, settings.
        folded: Whether its modulation layers were folded.
        dtype: Dtype of the weights, which loading needs.
        name: Name of the repository or folder, for the example.
    """
    license = license_of(base_model)
    header = ["library_name: diffusers", "pipeline_tag: image-to-image", f"license: {license.identifier}"]
    if license.identifier == "other":
        header += [f"license_name: {license.name}", f"license_link: {license.link}"]
    named = f"[{license.name}]({license.link}), the license of its base. " if license.link else ""
    if "/" in base_model:
        header.append(f"base_model: {base_model}")
    header.append("tags: [fluxsr, super-resolution, one-step]")
    folding = (
        "\nIts modulation layers are folded: it runs at this one time, with the prompt and guidance stored inside, and "
        "refuses others.\n"
        if folded
        else ""
    )
    return f"""---
{chr(10).join(header)}
---

# Image super-resolution in one step

Made with fluxsr from `{base_model}`. It restores an image that was enlarged bicubically in one step,
from t = {start_time:g} to 0.
{folding}
## Use

```python
import torch
from PIL import Image

from fluxsr.inference.pipeline import FluxSRPipeline

pipeline = FluxSRPipeline.from_pretrained("{name}", torch_dtype=torch.{dtype})
pipeline(Image.open("photo.jpg"), scale=4).images[0].save("large.png")
```

## Training

{trained or "Not stated."}

## License

{named}{license.terms}
"""
