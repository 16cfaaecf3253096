import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from fluxsr.evaluation import evaluate, folder_system, open_folders
from fluxsr.evaluation.report.curves import power_spectrum, read_curves, relative_spectra, smoothed
from fluxsr.images import write_image


def test_csv_and_tensorboard_logs_are_read(tmp_path):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "metrics.csv").write_text(
        "epoch,step,train/loss,val/psnr_y\n0,0,1.5,\n0,5,,20\n1,10,0.5,22\n"
    )
    with SummaryWriter(tmp_path / "board") as writer:
        for step in range(3):
            writer.add_scalar("train/adl", step**2, step)
    curves = read_curves(tmp_path)
    assert curves == {
        "train/loss": [(0, 1.5), (10, 0.5)],
        "val/psnr_y": [(5, 20), (10, 22)],
        "train/adl": [(0, 0), (1, 1), (2, 4)],
    }
    assert next(iter(curves)) == "train/loss"


def test_a_training_of_one_step_has_points(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1.5\n")
    assert read_curves(tmp_path) == {"train/loss": [(0, 1.5)]}


def test_folders_without_logs_are_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=str(folder)):
            read_curves(folder)


def test_long_curves_are_means_over_stretches():
    assert smoothed([(0, 1.0), (1, 3.0)]) == [(0, 1.0), (1, 3.0)]
    points = smoothed([(float(step), float(step % 2)) for step in range(1000)])
    assert len(points) == 100 and {value for _, value in points} == {0.5} and points[-1][0] == 999


def test_a_wave_is_at_its_frequency_with_its_power():
    columns = torch.arange(512, dtype=torch.float64)
    picture = (0.5 + 0.2 * torch.sin(2 * torch.pi * columns / 16)).expand(3, 300, 512)
    spectrum = power_spectrum(picture)
    assert int(spectrum.argmax()) == 16
    # Amplitude a under a Hann window of length N: (a N / 4)^2; only the rows carry it.
    assert float(spectrum[16]) == pytest.approx((0.2 * 256 / 4) ** 2 / 2, rel=1e-6)


def test_a_grid_stands_out_at_its_period(tmp_path, photo):
    grid = 0.1 * (torch.arange(256) % 16 == 0).float()
    images = {"HR": photo[0], "grid": photo[0] + grid + grid[:, None], "dimmed": photo[0] * 0.9}
    for name, image in images.items():
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", image)
    testset = open_folders(tmp_path / "HR")
    systems = [folder_system(name, tmp_path / name, testset) for name in ("grid", "dimmed")]
    spectra = relative_spectra(evaluate(testset, systems, ["psnr"]))
    values = dict(spectra["grid"])
    for harmonic in (3, 5):
        peak = values[harmonic / 16]
        assert peak > 3 + max(values[(16 * harmonic + offset) / 256] for offset in (-4, 4))
    # 0.9 of every amplitude is -0.9 dB everywhere, but for rounding to 8 bit.
    assert all(value == pytest.approx(-0.915, abs=0.5) for frequency, value in spectra["dimmed"] if frequency < 0.1)


def test_long_curves_are_means_over_stretches():
    assert smoothed([(0, 1.0), (1, 3.0)]) == [(0, 1.0), (1, 3.0)]
    points = smoothed([(float(step), float(step % 2)) for step in range(1000)])
    assert len(points) == 100 and {value for _, value in points} == {0.5} and points[-1][0] == 999
