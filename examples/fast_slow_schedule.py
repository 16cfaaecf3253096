"""Use FlowSR's fast-slow schedule alone, in a consistency training loop of your own: no Lightning, no FLUX.

    python examples/fast_slow_schedule.py

Every pair of times has one end where four-step sampling stops and the other anywhere near it.
"""

import copy

import torch
from torch import nn

from fluxsr.flows import FastSlowSchedule, linear_path

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1))
average = copy.deepcopy(network).requires_grad_(False)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
schedule = FastSlowSchedule(fast_steps=4, slow_steps=1000)
generator = torch.Generator().manual_seed(0)

hr_image = nn.functional.interpolate(torch.rand(8, 3, 16, 16), size=64, mode="bicubic").clamp(0, 1)  # your photos
lr_image = nn.functional.avg_pool2d(hr_image, 5, stride=1, padding=2)


def estimate(net, xt, t):
    """The HR end seen from ``xt``: the identity at t = 0."""
    time = t.reshape(-1, 1, 1, 1)
    return xt - time * net(torch.cat([xt, time.expand(-1, 1, *xt.shape[-2:])], dim=1))


for step in range(60):
    s, t = schedule.sample(len(hr_image), generator=generator)  # s < t, one of them a multiple of 1/4
    xs, xt = linear_path(hr_image, lr_image, s), linear_path(hr_image, lr_image, t)
    with torch.no_grad():
        target = torch.where((s == 0).reshape(-1, 1, 1, 1), hr_image, estimate(average, xs, s))
    consistency = nn.functional.mse_loss(estimate(network, xt, t), target)
    on_hr = nn.functional.mse_loss(estimate(network, xs, s), hr_image)
    optimizer.zero_grad()
    (consistency + on_hr).backward()
    optimizer.step()
    with torch.no_grad():
        for kept, new in zip(average.parameters(), network.parameters(), strict=True):
            kept.lerp_(new, 0.05)
    if step % 20 == 0 or step == 59:
        with torch.no_grad():
            one_step = nn.functional.mse_loss(estimate(network, lr_image, torch.ones(8)), hr_image)
        print(f"step {step}: {1e3 * one_step.item():.4f} thousandths of squared error after one step")
