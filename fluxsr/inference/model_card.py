"""Model cards: what a saved model is, how to use it, and the license that its base gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluxsr.models import FLUX_ARCHITECTURES
from fluxsr.models.known_names import SHIPPED

FLUX_DEV = "black-forest-labs/FLUX.1-dev"


class License(NamedTuple):
    """A license as a model hub names it.

    Attributes:
        identifier: the hub's short name; ``other`` for a license that has none.
        name: Name of the license.
        link: to its text.
        commercial: whether commercial use is free.
    """

    identifier: str
    name: str
    link: str
    commercial: bool


APACHE = License("apache-2.0", "apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", True)
NON_COMMERCIAL = License(
    "other",
    "flux-1-dev-non-commercial-license",
    f"https://huggingface.co/{FLUX_DEV}/blob/main/LICENSE.md",
    False,
)


def license_of(base_model: str) -> License:
    """Return the license of what is made from a base.

    FLUX.1-schnell and this project's nano models are Apache-2.0. FLUX.1-dev, all that is made from it, and every base that
    is not known here are non-commercial: better too strict than wrong.
    """
    free = base_model in SHIPPED or base_model.lower().split("/")[-1] == "flux.1-schnell"
    return APACHE if free else NON_COMMERCIAL


def base_model_of(model: str, config: Mapping[str, Any]) -> str:
    """Return the public name of the base that ``model`` is: a hub id, ``nano``, or a folder's own name, without its path.

    Args:
        model: what was loaded, by name or path.
        config: Configuration of its transformer. With a guidance embedding it is FLUX.1-dev or made from it.
    """
    nano = FLUX_ARCHITECTURES["nano"]
    if model in SHIPPED or all(config.get(key) == nano[key] for key in nano):
        return "nano"
    if not Path(model).exists():
        return model
    return FLUX_DEV if config.get("guidance_embeds") else Path(model).resolve().name


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
        base_model: hub id of the base, or ``nano``.
        start_time: time of the LR latents that the model was trained with.
        trained: how: data, steps, settings.
        folded: whether its modulation layers were folded.
        dtype: Dtype of the weights, which loading has to be told.
        name: Name of the repository or folder, for the example.
    """
    license = license_of(base_model)
    header = ["library_name: diffusers", "pipeline_tag: image-to-image", f"license: {license.identifier}"]
    if license.identifier == "other":
        header += [f"license_name: {license.name}", f"license_link: {license.link}"]
    if "/" in base_model:
        header.append(f"base_model: {base_model}")
    header.append("tags: [fluxsr, super-resolution, one-step]")
    terms = (
        "Commercial use is allowed."
        if license.commercial
        else "**Commercial use is not allowed** without a license from Black Forest Labs: it is made from FLUX.1-dev, or "
        "from a base whose license is not known."
    )
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

[{license.name}]({license.link}), the license of its base. {terms}
"""
