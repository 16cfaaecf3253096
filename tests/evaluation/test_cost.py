import time

import pytest
import torch

from fluxsr.evaluation.cost import CostMeter, summary


def test_stages_add_up_their_calls():
    meter = CostMeter("cpu")
    wait = meter.wrap("wait", time.sleep)
    wait(0.02)
    wait(0.03)
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
