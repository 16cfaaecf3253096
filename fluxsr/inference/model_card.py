"""Writes model cards: what a saved model is, how to use it, and the license that its base gives it."""

from __future__ import annotations

from fluxsr.models.known_names import license_of as license_of  # the app asks here
from fluxsr.models.student import StudentRecord


def model_card(record: StudentRecord, *, folded: bool = False, dtype: str = "float32", name: str = "PATH_OR_ID") -> str:
    """Return the text of a ``README.md`` for a saved :class:`fluxsr.inference.pipeline.FluxSRPipeline`."""
    base_model = record.base or "unknown"
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
from t = {record.start_time:g} to 0.
{folding}
## Use

```python
import torch
from PIL import Image

from fluxsr.inference.pipeline import FluxSRPipeline

pipeline = FluxSRPipeline.from_pretrained("{name}", torch_dtype=torch.{dtype})
pipeline(Image.open("photo.jpg")).images[0].save("large.png")
```

## Training

{record.trained or "Not stated."}

## License

{named}{license.terms}
"""
