"""TV-LPIPS against what people write by hand: two ``lpips.LPIPS`` calls, forward and backward at 512x512.

Time: interleaved pairs in this process, median of the ratios. Memory: one pass in a fresh process each, the peak
resident size above that before the pass, with the allocator told to hand freed blocks back at once (otherwise the
peak would measure its caching). The weights are random: neither number depends on them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.memory import peak_above, peak_of
from fluxsr.losses import TVLPIPSLoss
from fluxsr.losses.backbones import build_tower
from fluxsr.losses.functional import total_variation_map
from fluxsr.losses.lpips_net import LPIPSNet, load_heads

SIDE = 512
WEIGHT_TV = 0.5


def random_lpips() -> tuple[nn.Module, LPIPSNet]:
    """The package's LPIPS-VGG and ours, with the same random convolutions."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision deprecates an argument that lpips passes
        plain = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    plain.requires_grad_(False)
    state = {"features." + name.split(".", 1)[1]: value for name, value in plain.net.state_dict().items()}
    return plain, LPIPSNet(build_tower("vgg", state), load_heads("vgg")).eval()


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hr_image = torch.rand(1, 3, SIDE, SIDE, generator=generator)
    noise = torch.randn(hr_image.shape, generator=generator)
    return (hr_image + 0.1 * noise).clamp(0, 1).requires_grad_(), hr_image


def by_hand(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(sr_image: Tensor, hr_image: Tensor) -> Tensor:
        plain = net(sr_image * 2 - 1, hr_image * 2 - 1)
        tv = net(total_variation_map(sr_image) - 1, total_variation_map(hr_image) - 1)
        return (plain + WEIGHT_TV * tv).mean()

    return loss


def make(variant: str) -> Callable[[Tensor, Tensor], Tensor]:
    plain, own = random_lpips()
    if variant == "by hand":
        return by_hand(plain)
    if variant == "compiled":
        return TVLPIPSLoss(WEIGHT_TV, net=torch.compile(own))  # type: ignore[arg-type]
    return TVLPIPSLoss(WEIGHT_TV, net=own)


def seconds(loss: Callable[[Tensor, Tensor], Tensor], sr_image: Tensor, hr_image: Tensor) -> float:
    sr_image.grad = None
    start = time.perf_counter()
    loss(sr_image, hr_image).backward()
    return time.perf_counter() - start


def time_ratio(variant: str, pairs: int) -> float:
    """Median over interleaved pairs of (time of the variant) / (time by hand)."""
    loss, reference = make(variant), make("by hand")
    sr_image, hr_image = images()
    for warm_up in (loss, reference):
        seconds(warm_up, sr_image, hr_image)
    ratios = []
    for index in range(pairs):
        order = (loss, reference) if index % 2 else (reference, loss)
        spent = {id(one): seconds(one, sr_image, hr_image) for one in order}
        ratios.append(spent[id(loss)] / spent[id(reference)])
    return statistics.median(ratios)


def print_peak(variant: str) -> None:
    loss = make(variant)
    sr_image, hr_image = images()
    # A small pass first: what libraries allocate once is nobody's peak. (A compiled network would compile again.)
    if variant != "compiled":
        small = sr_image[..., :64, :64].detach().requires_grad_()
        loss(small, hr_image[..., :64, :64]).backward()
    else:
        loss(sr_image, hr_image).backward()
    sr_image.grad = None
    print(peak_above(lambda: loss(sr_image, hr_image).backward()))


def run(pairs: int = 5, compiled: bool = True) -> dict[str, float]:
    """All ratios, TV-LPIPS over two plain calls; ``nan`` where this machine can't measure one."""
    results = {"time": time_ratio("ours", pairs)}
    if compiled:
        try:
            results["time_compiled"] = time_ratio("compiled", pairs)
        except Exception:  # no compiler on this machine: torch raises many kinds of errors
            results["time_compiled"] = float("nan")
    if sys.platform.startswith("linux"):
        reference = peak_of("benchmarks.tv_lpips", "by hand")
        results["peak_memory"] = peak_of("benchmarks.tv_lpips", "ours") / reference
        results["peak_mib_by_hand"] = reference / 2**20
    else:
        results["peak_memory"] = float("nan")
    return results


TARGETS = {"time": 1.02, "time_compiled": 0.9, "peak_memory": 0.65}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peak-of", choices=("by hand", "ours", "compiled"), help="print one peak in bytes and leave")
    args = parser.parse_args()
    if args.peak_of:
        print_peak(args.peak_of)
        return
    print(f"TV-LPIPS (VGG) over two lpips.LPIPS calls, forward + backward, {SIDE}x{SIDE}")
    for name, value in run(args.pairs).items():
        target = f"  (at most {TARGETS[name]})" if name in TARGETS else ""
        print(f"  {name:18} {value:8.3f}{target}")


if __name__ == "__main__":
    main()
