"""Defines flow trajectories: paths, times, solvers and objectives. It needs only torch."""

from fluxsr.flows.calibration import LRTimeEstimate, calibrate_lr_time
from fluxsr.flows.consistency_sr_flow import ConsistencySRFlow
from fluxsr.flows.fast_slow_schedule import FastSlowSchedule
from fluxsr.flows.flow_matching import FlowMatching
from fluxsr.flows.flow_trajectory_distillation import FlowTrajectoryDistillation
from fluxsr.flows.objective import Distance, FlowObjective, FlowOutput, LatentPair, PairedTimes, Role, latent_mse
from fluxsr.flows.paths import expand_times, linear_path
from fluxsr.flows.rectified_sr_flow import RectifiedSRFlow
from fluxsr.flows.solvers import euler
from fluxsr.flows.timesteps import GridTimes, LogitNormalTimes, TimeSampler, UniformTimes, resolution_shift, shift_times

__all__ = [
    "ConsistencySRFlow",
    "Distance",
    "FastSlowSchedule",
    "FlowMatching",
    "FlowObjective",
    "FlowOutput",
    "FlowTrajectoryDistillation",
    "GridTimes",
    "LRTimeEstimate",
    "LatentPair",
    "LogitNormalTimes",
    "PairedTimes",
    "RectifiedSRFlow",
    "Role",
    "TimeSampler",
    "UniformTimes",
    "calibrate_lr_time",
    "euler",
    "expand_times",
    "latent_mse",
    "linear_path",
    "resolution_shift",
    "shift_times",
]
