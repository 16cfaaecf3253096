import pytest
from torch.utils.tensorboard import SummaryWriter

from fluxsr.evaluation.report.page import read_curves, smoothed


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
