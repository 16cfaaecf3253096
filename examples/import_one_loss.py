"""Use one loss in your own training loop: no Lightning, no FLUX.

    python examples/import_one_loss.py

``net="vgg"`` downloads its weights once; ``net="nano"`` ships with the package.
"""

import torch
from torch import nn

from fluxsr.losses import TVLPIPSLoss

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.PixelShuffle(4))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
perceptual = TVLPIPSLoss(net="nano", weight_tv=0.5)

hr_image = nn.functional.interpolate(torch.rand(2, 3, 16, 16), size=64, mode="bicubic").clamp(0, 1)  # your photos
lr_image = nn.functional.interpolate(hr_image, scale_factor=0.25, mode="area")

for step in range(30):
    sr_image = model(lr_image)
    loss = nn.functional.l1_loss(sr_image, hr_image) + 0.1 * perceptual(sr_image, hr_image)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0 or step == 29:
        print(f"step {step}: {loss.item():.4f}")
