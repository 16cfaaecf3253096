"""What `fluxsr upscale --memory` chooses for each base and card, and the expected peak: computed, nothing is downloaded.

python -m benchmarks.inference_memory
"""

from __future__ import annotations

import torch

from fluxsr.inference.form import choose_form
from fluxsr.inference.loading import FLUX_WINDOW
from fluxsr.inference.memory import memory_limit
from fluxsr.models import load_autoencoder, load_flux
from fluxsr.sizes import gigabytes

CARDS = ("8GB", "12GB", "16GB", "24GB")
# Name, its guidance, and whether a prompt of 512 tokens goes along.
BASES = [
    ("black-forest-labs/FLUX.1-dev", 3.5, False),
    ("black-forest-labs/FLUX.1-dev", 3.5, True),
    ("black-forest-labs/FLUX.1-schnell", None, False),
    ("black-forest-labs/FLUX.2-klein-4B", None, False),
    ("black-forest-labs/FLUX.2-klein-4B", None, True),
    ("black-forest-labs/FLUX.2-klein-9B", None, False),
    ("black-forest-labs/FLUX.2-klein-9B", None, True),
]


def main() -> None:
    """Print the table."""
    print("| base | " + " | ".join(CARDS) + " |\n" + "|---" * (len(CARDS) + 1) + "|")
    for name, guidance, text in BASES:
        # A prompt file that isn't there counts as 512 tokens on the meta device.
        prompt = "prompt.safetensors" if text else None
        velocity = load_flux(
            name, trainable="none", guidance=guidance, prompt=prompt, dtype="bfloat16", device="meta"
        ).eval()
        cells = []
        for card in CARDS:
            autoencoder = load_autoencoder(name, subfolder="vae", dtype="bfloat16", device="meta")
            limit = memory_limit(card, torch.device("cuda"))
            plan = choose_form(velocity, autoencoder, 0.25, FLUX_WINDOW, limit, cuda=True)
            form = plan.form
            words = [
                "folded" * form.folded,
                form.quantize or "bfloat16",
                "block by block" * form.by_block,
                "tiled autoencoder" * form.tiled,
                f"window {plan.window}" * (plan.window < FLUX_WINDOW),
            ]
            cells.append(f"{', '.join(word for word in words if word)}: {gigabytes(plan.peak_bytes)}")
        print(f"| {name.split('/')[1]}{', 512 tokens of text' if text else ''} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
