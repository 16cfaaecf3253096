"""FlowSR around a diffusers UNet, both stages: a rectified flow from LR to HR, then consistency distillation held to HR.

    python examples/consistency_around_a_unet.py

The objectives call ``velocity(xt, t)`` and nothing else; teacher and moving average are two more such callables.
"""

import copy

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from fluxsr.flows import ConsistencySRFlow, FastSlowSchedule, LatentPair, RectifiedSRFlow


class UNetVelocity(nn.Module):
    """A diffusers UNet as a velocity model; it wants its time in thousandths."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.unet(xt, t * 1000).sample


torch.manual_seed(0)
blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
student = UNetVelocity(
    UNet2DModel(sample_size=16, in_channels=4, out_channels=4, block_out_channels=(16, 32), norm_num_groups=4, **blocks)
)
hr_latents = torch.randn(8, 4, 16, 16)  # your autoencoder's latents
lr_latents = nn.functional.avg_pool2d(hr_latents, 3, stride=1, padding=1)
pair = LatentPair(hr_latents, lr_latents)


def train(objective, steps: range, **roles: nn.Module) -> None:
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    for step in steps:
        output = objective(student, pair, **roles)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        if "target" in roles:  # the consistency target is the student's moving average
            with torch.no_grad():
                for kept, new in zip(roles["target"].parameters(), student.parameters(), strict=True):
                    kept.lerp_(new, 1 - objective.target_decay)
        if step % 40 in (0, 39):
            with torch.no_grad():
                one_step = nn.functional.mse_loss(objective.restore(student, lr_latents), hr_latents)
            print(f"step {step}: {one_step.item():.4f} squared error after one step")


train(RectifiedSRFlow(velocity_weight=1.0), range(40))
teacher, target = (copy.deepcopy(student).requires_grad_(False) for _ in range(2))
stage_two = ConsistencySRFlow(FastSlowSchedule(4, 1000), hr_weight=1.0)
train(stage_two, range(40, 80), teacher=teacher, target=target)
