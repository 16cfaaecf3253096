"""Draws the figures of docs/flowsr.md: the pairs of times of three schedules, and the toy of the HR regularization.

python docs/make_flowsr_figures.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from fluxsr.flows import ConsistencySRFlow, FastSlowSchedule, LatentPair
from fluxsr.protocols import VelocityModel

IMAGES = Path(__file__).parent / "images"
BLUE, ORANGE, GRAY = "#2a6fbb", "#d9822b", "#8a8a8a"
DIRECTION, TEACHER_ERROR = torch.tensor([1.6, 0.5]), torch.tensor([0.25, -0.45])


def pairs_of_times() -> None:
    """The square of (s, t): where consistency on one grid looks, and where fast-slow pairs look."""
    schedules = {
        "one fast grid, 4 steps": FastSlowSchedule(4, 4),
        "one slow grid, 1000 steps": FastSlowSchedule(1000, 1000),
        "fast-slow, 4 and 1000": FastSlowSchedule(4, 1000),
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 4), sharey=True, layout="constrained")
    for axis, (title, schedule) in zip(axes, schedules.items(), strict=True):
        s, t = schedule.sample(600, generator=torch.Generator().manual_seed(0))
        t_fast = torch.isin(t, FastSlowSchedule(4, 4).fast_grid)
        few = len(schedule.slow_grid) == 5
        for chosen, color, label in ((t_fast, BLUE, "t on the fast grid"), (~t_fast, ORANGE, "t between")):
            axis.scatter(s[chosen], t[chosen], s=60 if few else 7, color=color, label=label if chosen.any() else None)
        for k in range(5):
            axis.axhline(k / 4, color=GRAY, lw=0.4, zorder=0)
            axis.axvline(k / 4, color=GRAY, lw=0.4, zorder=0)
        axis.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":")
        axis.set(title=title, xlabel="s (nearer HR)", xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
    axes[0].set_ylabel("t (nearer LR)")
    axes[2].legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(IMAGES / "fast_slow_pairs.png", dpi=110)
    plt.close(figure)


def field(v: torch.Tensor) -> VelocityModel:
    """Return the constant velocity field ``v`` in the plane."""
    return lambda z, t: v.reshape(1, 2, 1, 1).expand_as(z)


def distill(hr_weight: float, steps: int = 1500) -> list[torch.Tensor]:
    """Return the student's velocity error after each step; HR points h, LR points h + d, constant velocities."""
    generator = torch.Generator().manual_seed(0)
    error = torch.zeros(2, requires_grad=True)
    objective = ConsistencySRFlow(hr_weight=hr_weight, flow_share=0.0)
    optimizer = torch.optim.SGD([error], lr=0.1)
    history = []
    for _ in range(steps):
        hr = torch.randn(64, 2, 1, 1, generator=generator)
        roles = {"teacher": field(DIRECTION + TEACHER_ERROR), "target": field(DIRECTION + error.detach())}
        pair = LatentPair(hr, hr + DIRECTION.reshape(1, 2, 1, 1))
        optimizer.zero_grad()
        objective(field(DIRECTION + error), pair, generator=generator, **roles).loss.backward()
        optimizer.step()
        history.append(error.detach().clone())
    return history


def closed_form(hr_weight: float) -> torch.Tensor:
    """The fixed point: e (E[t(t-s)] - w E[s(t-s)]) / (E[t(t-s)] + w E[s^2])."""
    s, t = FastSlowSchedule().sample(1_000_000, generator=torch.Generator().manual_seed(1))
    gap = (t * (t - s)).mean()
    return TEACHER_ERROR * (gap - hr_weight * (s * (t - s)).mean()) / (gap + hr_weight * s.square().mean())


def draw_plane(axis: Axes, final: dict[float, torch.Tensor]) -> None:
    """HR and LR points, and where one step of each student lands."""
    hr = torch.randn(7, 2, generator=torch.Generator().manual_seed(4)) * torch.tensor([0.35, 0.6])
    lr = hr + DIRECTION
    for h, low in zip(hr, lr, strict=True):
        axis.plot(*torch.stack([h, low]).T, color=GRAY, lw=0.6, zorder=0)
    axis.scatter(*hr.T, color="black", s=40, label="HR")
    axis.scatter(*lr.T, color=GRAY, s=40, label="LR")
    for (weight, error), color, marker in zip(final.items(), (ORANGE, BLUE), ("x", "+"), strict=True):
        name = "with" if weight else "without"
        axis.scatter(*(lr - DIRECTION - error).T, color=color, marker=marker, s=70, label=f"one step, {name} HR term")
    axis.set(title="where one step lands", aspect="equal", xticks=[], yticks=[])
    axis.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.02))


def hr_regularisation() -> None:
    """A teacher with a constant error, distilled with and without the HR term."""
    histories = {weight: distill(weight) for weight in (0.0, 1.0)}
    figure, (plane, drift) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    draw_plane(plane, {weight: history[-1] for weight, history in histories.items()})
    for (weight, history), color in zip(histories.items(), (ORANGE, BLUE), strict=True):
        label = f"{'with' if weight else 'without'} HR term (w = {weight:g})"
        drift.plot(torch.stack(history).norm(dim=1), color=color, label=label)
        drift.axhline(closed_form(weight).norm(), color=color, ls="--", lw=1)
        measured, expected = history[-1].norm(), closed_form(weight).norm()
        print(f"w = {weight:g}: drift {measured:.4f}, closed form {expected:.4f}, teacher {TEACHER_ERROR.norm():.4f}")
    drift.axhline(TEACHER_ERROR.norm(), color=GRAY, ls=":", label="the teacher's own error")
    drift.set(title="drift from HR; dashed: closed form", xlabel="training step", ylim=(0, None))
    drift.legend(frameon=False, fontsize=9, loc="center right")
    figure.savefig(IMAGES / "hr_regularisation.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    pairs_of_times()
    hr_regularisation()
