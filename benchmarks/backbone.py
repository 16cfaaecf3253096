"""A training step's two backbone passes: batched or not, compiled or not, checkpointed or not.

Forward and backward of FTD's two passes on a random FLUX of 21 M parameters with a LoRA, 576 image tokens, batch 1, float32.
Time: interleaved rounds in this process, median of the ratios; on the CPU its time on one thread, so that other work does not
count. Memory: a fresh process each, the peak above what is resident before the step (on CUDA: the allocator's count).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import peak_above, peak_of
from fluxsr.models import FluxBackbone, compile_blocks

SIDE = 48  # of the latents: 24 x 24 tokens
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LR_TIME = 0.25
PLAIN = "two passes"
VARIANTS = {
    "batched": "both passes batched into one / one after the other",
    "compiled": "compiled blocks / not",
    "checkpointed": "gradient checkpointing / not",
}


def make_backbone(gradient_checkpointing: bool = False) -> FluxBackbone:
    """A double-stream and three single-stream blocks, 512 wide."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    transformer: Any = FluxTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=3, attention_head_dim=64, num_attention_heads=8,
        joint_attention_dim=64, pooled_projection_dim=64, axes_dims_rope=(16, 24, 24),
    )  # fmt: skip
    backbone = FluxBackbone(transformer, gradient_checkpointing=gradient_checkpointing)
    backbone.add_lora(rank=16)
    # Standard LoRA starts with B = 0, and then every A has a zero gradient.
    for name, parameter in backbone.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return backbone.to(DEVICE).train()


def make_step(variant: str) -> Callable[[], None]:
    """Return one forward and backward of FTD's two passes."""
    backbone = make_backbone(gradient_checkpointing=variant == "checkpointed")
    if variant == "compiled":
        compile_blocks(backbone)
    hr, lr, noise = torch.randn(3, 1, 16, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    t = torch.full((1,), 0.625, device=DEVICE)
    lr_time = torch.full((1,), LR_TIME, device=DEVICE)
    share = (0.625 - LR_TIME) / (1 - LR_TIME)
    zt = torch.lerp(lr, noise, share)

    def passes() -> tuple[Tensor, Tensor]:
        if variant == "batched":
            v = backbone(torch.cat([zt, lr]), torch.cat([t, lr_time]))
            return v[:1], v[1:]
        return backbone(zt, t), backbone(lr, lr_time)

    def step() -> None:
        backbone.zero_grad()
        v, v_lr = passes()
        flow = (lr - LR_TIME * v - hr).square().mean()
        restoration = (lr - LR_TIME * v_lr - hr).square().mean()
        (flow + restoration).backward()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return step


def seconds(step: Callable[[], None]) -> float:
    clock = time.perf_counter if DEVICE == "cuda" else time.process_time
    start = clock()
    step()
    return clock() - start


def time_ratio(variant: str, rounds: int) -> float:
    """Median over interleaved rounds of (time of the variant) / (time of two plain passes)."""
    step, plain = make_step(variant), make_step(PLAIN)
    for _ in range(2):  # compiling, and the first allocations
        step(), plain()
    ratios = []
    for index in range(rounds):
        order = (step, plain) if index % 2 else (plain, step)
        spent = {one: seconds(one) for one in order}
        ratios.append(spent[step] / spent[plain])
    return statistics.median(ratios)


def print_peak(variant: str) -> None:
    step = make_step(variant)
    step()
    print(peak_above(step, DEVICE))


def run(rounds: int = 3, variants: tuple[str, ...] = tuple(VARIANTS)) -> dict[str, dict[str, float]]:
    """Return ``time`` and ``peak_memory`` ratios by variant; ``nan`` where this machine can't measure one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    memory = DEVICE == "cuda" or sys.platform.startswith("linux")
    plain = peak_of("benchmarks.backbone", PLAIN) if memory else float("nan")
    results = {PLAIN: {"peak_mib": plain / 2**20}}
    for variant in variants:
        try:
            ratios = {"time": time_ratio(variant, rounds)}
            ratios["peak_memory"] = peak_of("benchmarks.backbone", variant) / plain if memory else float("nan")
        except Exception:  # no compiler on this machine: torch raises many kinds of errors
            if variant != "compiled":
                raise
            ratios = {"time": float("nan"), "peak_memory": float("nan")}
        results[variant] = ratios
    torch.set_num_threads(threads)
    return results


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-of", choices=(PLAIN, *VARIANTS), help="print one peak in bytes and leave")
    options = parser.parse_args(arguments)
    if options.peak_of:
        print_peak(options.peak_of)
        return
    results = run(options.rounds)
    print(f"ratios{'':<50}time   peak memory ({PLAIN}: {results[PLAIN]['peak_mib']:.0f} MiB)")
    for variant, what in VARIANTS.items():
        print(f"  {what:<52}{results[variant]['time']:6.2f}{results[variant]['peak_memory']:14.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
