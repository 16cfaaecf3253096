"""The student and a step of an objective are one graph for a compiler: nothing of ours breaks it."""

from __future__ import annotations

import pytest
import torch

from fluxsr.flows import FlowMatching, FlowTrajectoryDistillation, LatentPair, RectifiedSRFlow
from fluxsr.models import FluxBackbone
from tests.models.conftest import perturb, tiny_transformer

pytestmark = pytest.mark.torch("2.11")


@pytest.mark.parametrize(
    "objective",
    [FlowTrajectoryDistillation(0.25), FlowMatching(), RectifiedSRFlow(velocity_weight=1.0)],
    ids=lambda objective: type(objective).__name__,
)
def test_a_step_is_one_graph(objective, generator):
    torch.compiler.reset()
    backbone = FluxBackbone(tiny_transformer(num_layers=1, num_single_layers=1))
    backbone.add_lora(rank=2)
    perturb(backbone)
    pair = LatentPair(*torch.randn(3, 1, 4, 8, 8, generator=generator))
    times = torch.tensor([0.5])

    def step():
        output = objective(backbone, pair, times=times)
        return output.loss, output.x0_hat

    compiled = torch.compile(step, backend="eager", fullgraph=True)  # raises where the graph breaks
    for made, expected in zip(compiled(), step(), strict=True):
        torch.testing.assert_close(made, expected)
