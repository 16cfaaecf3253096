import pytest
import torch

from fluxsr.flows import LatentPair, calibrate_lr_time


def pairs(distance, generator, batches=3):
    for _ in range(batches):
        hr, noise, direction = torch.randn(3, 8, 4, 16, 16, generator=generator)
        yield LatentPair(hr, hr + distance * direction, noise)


def test_recovers_the_share_of_the_path(generator):
    # rms(lr - hr) = d and rms(noise - hr) = sqrt(2) for unit latents.
    estimate = calibrate_lr_time(pairs(0.4, generator))
    assert estimate.lr_time == pytest.approx(0.4 / 2**0.5, rel=0.01)
    assert estimate.per_image.shape == (24,)
    assert "from 24 images" in str(estimate)


def test_matches_the_noise_that_is_as_strong_beside_the_signal(generator):
    # At t the path holds t of unit noise to 1 - t of the image: t / (1 - t) = d.
    estimate = calibrate_lr_time(pairs(0.4, generator), "snr")
    assert estimate.lr_time == pytest.approx(0.4 / 1.4, rel=0.01) and estimate.rule == "snr"
    assert float(estimate.per_image.mean()) == pytest.approx(estimate.lr_time, rel=0.01)
    with pytest.raises(ValueError, match="norm, snr, got 'share'"):
        calibrate_lr_time(pairs(0.4, generator), "share")


def test_is_clamped(generator):
    assert calibrate_lr_time(pairs(1e-4, generator)).lr_time == 0.02
    assert calibrate_lr_time(pairs(10.0, generator)).lr_time == 0.9


def test_errors(generator):
    with pytest.raises(ValueError, match="at least one LatentPair"):
        calibrate_lr_time([])
    with pytest.raises(ValueError, match=r"LatentPair.lr"):
        calibrate_lr_time([LatentPair(torch.zeros(1, 1, 2, 2))])
    with pytest.raises(ValueError, match="nothing to restore"):
        calibrate_lr_time(pairs(0.0, generator))
