"""Four shifted passes: exact for what does not depend on the tokens, and without the grid for what does."""

from __future__ import annotations

import numpy as np
import torch

from fluxsr.inference.ensemble import ShiftedMean


def gridded(xt: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A velocity that is wrong by the position within each 2x2 token."""
    pattern = torch.tensor([[1.0, -1.0], [0.5, -0.5]]).repeat(xt.shape[-2] // 2, xt.shape[-1] // 2)
    return 0.5 * xt + pattern


def test_what_is_the_same_everywhere_stays_and_a_grid_averages_out(generator):
    xt, t = torch.randn(2, 3, 8, 12, generator=generator), torch.full((2,), 0.3)
    torch.testing.assert_close(ShiftedMean(lambda x, t: 0.5 * x)(xt, t), 0.5 * xt)
    torch.testing.assert_close(ShiftedMean(gridded)(xt, t), 0.5 * xt, rtol=0, atol=1e-6)
    assert float((gridded(xt, t) - 0.5 * xt).abs().mean()) > 0.5


def test_the_command_has_it(tmp_path):
    from PIL import Image

    from fluxsr.cli.main import main

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    outputs = []
    for option in ([], ["--ensemble"]):
        output = tmp_path / f"out{len(option)}.png"
        main(["upscale", str(tmp_path / "a.png"), "-o", str(output), *option])
        outputs.append(np.asarray(Image.open(output)))
    assert outputs[0].shape == outputs[1].shape == (48, 48, 3)
    assert not np.array_equal(*outputs)
