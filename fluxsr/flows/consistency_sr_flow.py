"""Implements FlowSR's second stage: consistency distillation of an SR flow, with a loss to the real HR image."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.flows.fast_slow_schedule import FastSlowSchedule
from fluxsr.flows.objective import Distance, FlowOutput, LatentPair, PairedTimes, Role, Times, latent_mse
from fluxsr.flows.paths import check_tensor_times, expand_times, linear_path, step_to_data, velocity_at
from fluxsr.flows.rectified_sr_flow import RectifiedSRFlow
from fluxsr.flows.timesteps import TimeSampler
from fluxsr.protocols import VelocityModel


class ConsistencySRFlow(RectifiedSRFlow):
    """HR-regularized consistency distillation with a fast-slow schedule (FlowSR, arXiv 2605.12377, stage 2).

    With ``f(z, t) = z - t v(z, t)``, a frozen stage-1 ``teacher``, the student and its moving average ``target``::

        z_s    = z_t - (t - s) v_teacher(z_t, t)                  the teacher's Euler step from t to s < t
        L_cons = d( f_student(z_t, t), stopgrad f_target(z_s, s) )
        L_hr   = d( f_student(z_s, s), z_H )                      the teacher's error is a mild perturbation
        L      = L_flow + L_cons + hr_weight L_hr

    At ``s = 0``, where every velocity gives ``f(z_s, 0) = z_s``, ``L_hr`` trains nothing and is left out; its mean stays over
    all rows. ``L_flow`` is stage 1's loss. It takes some samples of each batch, the consistency terms take the others. Without
    ``L_hr`` the student inherits whatever the teacher does wrong; with it, the student must land on the HR image from
    the teacher's slightly wrong points too.

    Args:
        schedule: Draws the adjacent times; ``FastSlowSchedule(4, 1000)`` by default.
        hr_weight: Weight of the HR regularization; 1 is our default, 0 leaves it out (an ablation).
        flow_share: Share in ``[0, 1)`` of each batch's samples that train ``L_flow``. The paper says "different samples" but
            no share: one half is our default.
        target_decay: Decay of the moving average that is the target. After every step :class:`fluxsr.training.OneStepSR` sets
            ``target = decay * target + (1 - decay) * student``. It is not published; 0.95 is our default.
        distance_weight: Weight of every distance; see :class:`RectifiedSRFlow`.
        velocity_weight: Weight of the latent velocity loss within ``L_flow``.
        time_sampler: Sampler of ``L_flow``'s times.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import torch
        >>> from fluxsr.flows import ConsistencySRFlow, LatentPair
        >>> hr, lr = torch.randn(2, 1, 4, 8, 8)
        >>> exact = lambda xt, t: (lr - hr).expand_as(xt)
        >>> output = ConsistencySRFlow(flow_share=0)(exact, LatentPair(hr, lr), teacher=exact, target=exact)
        >>> output.loss.item() < 1e-10
        True
    """

    def __init__(
        self,
        schedule: FastSlowSchedule | None = None,
        hr_weight: float = 1.0,
        flow_share: float = 0.5,
        target_decay: float = 0.95,
        distance_weight: float = 1.0,
        velocity_weight: float = 0.0,
        time_sampler: TimeSampler | None = None,
    ) -> None:
        super().__init__(distance_weight, velocity_weight, time_sampler)
        if not distance_weight:
            raise ValueError("distance_weight must be positive here: the consistency terms are distances")
        if hr_weight < 0:
            raise ValueError(f"hr_weight must not be negative, got {hr_weight}")
        if not 0 <= flow_share < 1:
            raise ValueError(f"flow_share must lie in [0, 1), got {flow_share}; for 1 there is RectifiedSRFlow")
        if not 0 <= target_decay < 1:
            raise ValueError(f"target_decay must lie in [0, 1), got {target_decay}; 0.95 to 0.999 are usual")
        self.schedule = schedule if schedule is not None else FastSlowSchedule()
        self.hr_weight = hr_weight
        self.flow_share = flow_share
        self.target_decay = target_decay

    @property
    def roles(self) -> tuple[Role, ...]:
        """The frozen stage-1 model, and the student's moving average."""
        return Role("teacher"), Role("target", decay=self.target_decay)

    def extra_repr(self) -> str:
        """Show the numbers."""
        return f"hr_weight={self.hr_weight}, flow_share={self.flow_share}, schedule={self.schedule}"

    def sample_times(self, batch_size: int, *, generator: torch.Generator | None = None) -> PairedTimes:
        """Draw adjacent times ``s < t`` and say which rows train the flow term, at ``t``. Each is ``(batch_size,)``.

        The flow rows come first. If ``flow_share`` of the batch is no whole number, it is rounded up or down at random.
        So a batch of one sample (on a large model) trains both terms in turn.
        """
        s, t = self.schedule.sample(batch_size, generator=generator)
        flow_times = self.time_sampler(batch_size, generator=generator)
        chance = torch.rand((), generator=generator, device=s.device)
        rows = torch.arange(batch_size, device=s.device) < torch.floor(self.flow_share * batch_size + chance)
        return PairedTimes(s, torch.where(rows, flow_times, t), rows)

    def time_grid(self) -> Tensor | None:
        """Return the schedule's slow grid together with the flow term's; ``None`` where the latter has none."""
        grid = super().time_grid()
        return None if grid is None else torch.cat([grid, self.schedule.slow_grid]).unique()

    def forward(
        self,
        velocity: VelocityModel,
        pair: LatentPair,
        *,
        teacher: VelocityModel | None = None,
        target: VelocityModel | None = None,
        times: Times | tuple[Tensor, Tensor] | None = None,
        distance: Distance = latent_mse,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Return the loss, the student's estimates from z_t (every row) and, further, from z_s (consistency rows with s > 0).

        The student is called once, on all its states together. Teacher and target run without gradient.

        Args:
            velocity: The student.
            pair: ``hr`` and ``lr`` are needed.
            teacher: The frozen stage-1 velocity model.
            target: The student's moving average.
            times: A :class:`PairedTimes`, as :meth:`sample_times` draws it, or the plain pair ``(s, t)`` that the schedule
                draws: then every row trains the consistency terms.
            distance: Distance of two latents, a scalar.
            generator: Source of the times, when they are drawn here.

        Raises:
            ValueError: If teacher, target or ``lr`` is missing, shapes differ, values are not finite, or some s is not
                before its t.
        """
        if teacher is None or target is None:
            raise ValueError(
                "ConsistencySRFlow needs teacher= (the frozen stage-1 model) and target= (the student's average)"
            )
        _, lr = pair.check("lr")
        # On the CPU, where they were drawn: choosing rows by value costs no wait for a GPU there.
        paired = self._paired(times, len(lr), generator)
        flow_rows, rows = (chosen.nonzero().flatten() for chosen in (paired.flow_rows, ~paired.flow_rows))
        s_rows = paired.s[rows].to(lr.device, non_blocking=True)
        late = (paired.s[rows] > 0).nonzero().flatten()  # of the consistency rows, those whose z_s a velocity can move
        late_rows, s_late = rows[late], paired.s[rows[late]].to(lr.device, non_blocking=True)
        t = paired.t.to(lr.device, non_blocking=True)
        t_rows = paired.t[rows].to(lr.device, non_blocking=True)
        zt = linear_path(pair.hr, lr, t)
        with torch.no_grad():
            zs = zt[rows]
            if len(rows):
                gap = expand_times(t_rows - s_rows, zs)
                zs = (zs - gap * velocity_at(teacher, zs, t_rows)).to(zs.dtype)
                x0_consistent = step_to_data(zs, velocity_at(target, zs, s_rows), s_rows)

        states, state_times = torch.cat([zt, zs[late]]), torch.cat([t, s_late])
        v = velocity_at(velocity, states, state_times)
        x0_hat, x0_from_zs = step_to_data(states, v, state_times).split([len(zt), len(late)])

        # Each term is a mean over the rows that it should have, not over those that it happens to have here: a batch that is
        # spread over processes, or over accumulated steps, then has the gradient of the whole.
        flow_share = self.flow_share if times is None or isinstance(times, PairedTimes) else 0.0
        loss, logs = torch.zeros((), device=lr.device), {}
        if len(flow_rows):
            logs["sr_flow"] = self.flow_loss(v[flow_rows], x0_hat[flow_rows], pair, distance, flow_rows)
            loss = loss + len(flow_rows) / (flow_share * len(lr) or len(flow_rows)) * logs["sr_flow"]
        if len(rows):
            share = len(rows) / ((1 - flow_share) * len(lr))
            logs["consistency"] = self.distance_weight * distance(x0_hat[rows], x0_consistent)
            loss = loss + share * logs["consistency"]
            if self.hr_weight:
                to_hr = pair.distance_to_hr(distance, x0_from_zs, late_rows) if len(late) else loss.new_zeros(())
                logs["hr_regularisation"] = self.distance_weight * len(late) / len(rows) * to_hr
                loss = loss + share * self.hr_weight * logs["hr_regularisation"]
        return FlowOutput(
            loss,
            x0_hat,
            pair.hr,
            estimates=((x0_from_zs, pair.hr[late_rows]),) if len(late) else (),
            estimate_rows=(late_rows,) if len(late) else (),
            logs={name: value.detach() for name, value in logs.items()},
            restoration_pass=0,
        )

    def _paired(
        self, times: Times | tuple[Tensor, Tensor] | None, batch_size: int, generator: torch.Generator | None
    ) -> PairedTimes:
        """Return the given or drawn times, checked, on the device where they are."""
        if times is None:
            times = self.sample_times(batch_size, generator=generator)
        if not isinstance(times, tuple) or len(times) not in (2, 3):
            raise ValueError(f"times must be a PairedTimes(s, t, flow_rows) or the tensors (s, t), got {times!r}")
        for one in times:
            check_tensor_times(one)
        s, t = times[:2]
        paired = times if isinstance(times, PairedTimes) else PairedTimes(s, t, torch.zeros_like(s, dtype=torch.bool))
        if any(one.shape != (batch_size,) for one in paired) or paired.flow_rows.dtype != torch.bool:
            shapes = ", ".join(f"{name} {tuple(one.shape)}" for name, one in paired._asdict().items())
            raise ValueError(f"s, t and the booleans flow_rows must have shape ({batch_size},) each; got {shapes}")
        right = (t >= 0) & (t <= 1) & (paired.flow_rows | ((s >= 0) & (s < t)))  # false for NaN, too
        if not bool(right.all()):
            row = int((~right).long().argmax())
            found = f"row {row} has s = {float(s[row]):g}, t = {float(t[row]):g}"
            raise ValueError(f"adjacent times must satisfy 0 <= s < t <= 1, s nearer the data; {found}")
        return paired
