"""Any callable ``velocity(xt, t) -> v`` will do: here flow trajectory distillation around a diffusers UNet.

    python examples/bring_your_own_velocity_model.py

The objective knows nothing of the network, so a wrapper of three lines is all the glue there is.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from fluxsr.flows import FlowTrajectoryDistillation, LatentPair, calibrate_lr_time


class UNetVelocity(nn.Module):
    """A diffusers UNet as a velocity model; it wants its time in thousandths."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.unet(xt, t * 1000).sample


torch.manual_seed(0)
blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
unet = UNet2DModel(
    sample_size=16, in_channels=4, out_channels=4, block_out_channels=(16, 32), norm_num_groups=4, **blocks
)
velocity = UNetVelocity(unet)

hr_latents, noise = torch.randn(2, 8, 4, 16, 16)  # your autoencoder's latents, and the noise that they came from
lr_latents = nn.functional.avg_pool2d(hr_latents, 3, stride=1, padding=1)
pair = LatentPair(hr_latents, lr_latents, noise)

estimate = calibrate_lr_time([pair])
print(estimate)
objective = FlowTrajectoryDistillation(estimate.lr_time)
optimizer = torch.optim.AdamW(velocity.parameters(), lr=2e-3)
for step in range(30):
    output = objective(velocity, pair)
    reconstruction = nn.functional.mse_loss(output.x0_hat, output.x0_target)  # latents; decode them for an image loss
    optimizer.zero_grad()
    (output.loss + reconstruction).backward()
    optimizer.step()
    if step % 10 == 0 or step == 29:
        print(f"step {step}: FTD {output.loss.item():.4f}, one-step restoration {reconstruction.item():.4f}")
