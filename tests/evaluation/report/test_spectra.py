import pytest
import torch

from fluxsr.evaluation import evaluate, folder_system, open_folders
from fluxsr.evaluation.report.spectra import power_spectrum, relative_spectra
from fluxsr.images import write_image


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
