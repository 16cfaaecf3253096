"""Prints a plan as lines for people."""

from __future__ import annotations

from fluxsr.planning.advice import Advice
from fluxsr.planning.plan import Plan, Validation


def to_text(plan: Plan) -> str:
    """Return a plan as lines for people."""
    count = plan.parameters
    sharding = {"none": "one device", "ddp": f"DDP on {plan.devices}", "fsdp2": f"FSDP2 over {plan.devices}"}[
        plan.strategy
    ]
    run = "" if plan.hours is None else f", the run {plan.hours:,.1f} h"
    fast, slow = plan.seconds_range
    lines = [
        f"per GPU, {sharding}; batch {plan.batch_size} x {plan.accumulate_grad_batches} accumulated, crop {plan.crop}, "
        f"precision {plan.precision}",
        "",
        "parameters",
        f"  transformer     {count['transformer']:>17,}",
        f"    modulation    {count['modulation']:>17,}   (and norm_out {count['norm_out']:,})",
        f"  trainable       {count['trainable']:>17,}",
        f"  autoencoder     {count['autoencoder']:>17,}",
        "",
        "held from step to step",
        *(f"  {kind:<24}{gigabytes(size):>12}" for kind, size in plan.held_bytes.items()),
        f"  {'':<24}{gigabytes(sum(plan.held_bytes.values())):>12}",
        "",
        "by phase                        peak          FLOP a batch",
        *(f"  {one.phase:<24}{gigabytes(one.peak_bytes):>12}{operations(one.flops):>22}" for one in plan.phases),
        "",
        f"peak {gigabytes(plan.peak_bytes)}, in the phase {plan.peak_phase}",
        *(f"  {kind:<24}{gigabytes(size):>12}" for kind, size in plan.peak.items()),
        "",
        *_validation(plan.validation),
        f"step        {operations(plan.flops_per_step)} a GPU; at {plan.tflops:g} TFLOP/s (stated) "
        f"{plan.seconds_per_step:.3g} s, {plan.steps_per_hour:,.0f} steps an hour{run}",
        f"            {fast:.3g} s at half as much again, {slow:.3g} s at half of it",
        f"host memory {gigabytes(plan.host_bytes)} a process, and {gigabytes(plan.host_shared_bytes)} of files that all share",
        f"checkpoint  {gigabytes(plan.checkpoint_bytes)}",
        "",
        *(f"note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


def _validation(one: Validation | None) -> list[str]:
    if one is None:
        return []
    how = "whole" if one.tile is None else f"in tiles of {one.tile}"
    return [
        f"validation  peak {gigabytes(one.peak_bytes)}, {one.batch_size} x {one.width}x{one.height} {how}, "
        f"{operations(one.flops)}",
        *(f"  {kind:<24}{gigabytes(size):>12}" for kind, size in one.peak.items()),
        "",
    ]


def advice_text(fits: bool, advice: list[Advice], memory: int, reserve: int) -> str:
    """Return whether it fits and what to do, as lines for people."""
    room = f"{gigabytes(memory)} less {gigabytes(reserve)} reserve"
    if fits:
        return f"\nfits: into {room}"
    lines = [f"\ndoes not fit into {room}; what saves memory:", "", "      saves        peak   fits   steps/h"]
    for one in advice:
        mark = "yes" if one.fits else "no"
        sizes = f"{gigabytes(one.saves_bytes):>11} {gigabytes(one.peak_bytes):>11}"
        lines.append(f"{sizes}   {mark:<4}{one.steps_per_hour:>10,.0f}   {one.what}")
        lines += [f"{'':<44}{argument}" for argument in one.arguments]
    return "\n".join(lines)


def gigabytes(number: float) -> str:
    """Write bytes for people."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.2f} MB"


def operations(number: float) -> str:
    """Write floating-point operations for people."""
    return f"{number / 1e12:,.2f} TFLOP" if number >= 1e11 else f"{number / 1e9:,.2f} GFLOP"
