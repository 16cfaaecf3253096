import time

import pytest
import torch

from fluxsr.evaluation import load_model
from fluxsr.evaluation.cost import CostMeter, summary
from fluxsr.inference import Upscaler


def test_stages_add_up_their_calls():
    meter = CostMeter("cpu")
    for seconds in (0.02, 0.03):
        with meter.stage("wait"):
            time.sleep(seconds)
    with meter.stage("other"):
        pass
    assert 0.05 <= meter.seconds["wait"] < 1 and meter.seconds["other"] < 0.02


def test_the_peak_is_that_of_the_stage_alone():
    meter = CostMeter("cpu")
    with meter.stage("large"):
        torch.ones(50_000_000)  # 200 MB, and gone again
    with meter.stage("small"):
        pass
    if not meter.peak_bytes:
        pytest.skip("this system doesn't tell a process' peak memory")
    assert meter.peak_bytes["large"] - meter.peak_bytes["small"] > 150e6


def test_the_summary_leaves_the_first_image_out_of_the_times_only():
    costs = [
        {"seconds": {"total": 9.0, "encode": 4.0}, "peak_bytes": {"encode": 70}},
        {"seconds": {"total": 1.0, "encode": 0.5}, "peak_bytes": {"encode": 50}},
        {"seconds": {"total": 3.0, "encode": 0.7}, "peak_bytes": {"encode": 60}},
    ]
    found = summary(costs)
    assert found["median_seconds"] == {"total": 2.0, "encode": 0.6} and found["images"] == 2
    assert found["peak_bytes"] == {"total": 0, "encode": 70}
    assert summary(costs[:1])["median_seconds"]["total"] == 9.0


def test_multiplications_are_counted_by_stage():
    meter = CostMeter("cpu")
    with meter.counting(), meter.stage("product"):
        torch.ones(3, 4) @ torch.ones(4, 5)
    with meter.counting(), meter.stage("convolution"):
        torch.nn.functional.conv2d(torch.ones(1, 2, 8, 8), torch.ones(6, 2, 3, 3))
    assert meter.macs == {"product": 3 * 4 * 5, "convolution": 6 * 2 * 9 * 36}
    with meter.stage("product"):
        torch.ones(3, 4) @ torch.ones(4, 5)
    assert meter.macs["product"] == 60  # outside nothing is counted


def test_a_model_tells_its_parameters_and_multiplications(generator):
    system = load_model("nano-student", device="cpu")
    counts = [system.macs(torch.rand(1, 3, side, side, generator=generator), (4 * side, 4 * side)) for side in (16, 32)]
    # Linear layers: twice the side, four times the pixels; attention grows faster.
    assert 4 <= counts[1]["velocity"] / counts[0]["velocity"] < 8
    assert counts[0]["total"] == sum(count for stage, count in counts[0].items() if stage != "total")
    velocity = Upscaler.from_pretrained("nano-student", device="cpu").velocity
    assert system.parameters == sum(p.numel() for p in velocity.parameters())


def test_attention_counts_on_the_cpu_too():
    meter, query = CostMeter("cpu"), torch.ones(1, 2, 64, 16)
    with torch.inference_mode(), meter.counting(), meter.stage("attention"):
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert meter.macs == {"attention": 2 * 64 * 64 * (16 + 16)}
