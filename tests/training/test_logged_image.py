"""Previews reach every logger that takes pictures; the services' own packages are not needed for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from fluxsr.losses import MSELoss
from fluxsr.training import ImageTerm
from fluxsr.training.callbacks import PreviewGrid
from fluxsr.training.callbacks.previews import log_image
from tests.training.conftest import loader, tiny_module, tiny_trainer


class Stand(Logger):
    """A logger that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.pictures: list[tuple] = []
        self.curves: dict[str, float] = {}

    name = "stand-in"
    version = "0"

    def log_metrics(self, metrics, step=None):
        self.curves |= metrics

    def log_hyperparams(self, params, *args, **kwargs):
        pass


class LikeWandb(Stand):
    experiment = None

    def log_image(self, key: str, images: list, step: int | None = None, **kwargs) -> None:
        self.pictures += [(key, np.asarray(image), step) for image in images]


class LikeTensorBoard(Stand):
    @property
    def experiment(self):
        return self

    def add_image(self, tag, img_tensor, global_step=None):
        self.pictures.append((tag, img_tensor.mul(255).round().byte().permute(1, 2, 0).numpy(), global_step))


class Client:
    def __init__(self, logger):
        self.logger = logger


class MLflowClient(Client):
    def log_image(self, run_id, image, artifact_file=None, key=None, step=None):
        assert run_id == "the run"
        self.logger.pictures.append((key, np.asarray(image), step))


class LikeMLflow(Stand):
    run_id = "the run"

    @property
    def experiment(self):
        return MLflowClient(self)


class CometExperiment(Client):
    def log_image(self, image_data, name=None, overwrite=False, step=None):
        self.logger.pictures.append((name, np.asarray(image_data), step))


class LikeComet(Stand):
    @property
    def experiment(self):
        return CometExperiment(self)


KINDS = [LikeWandb, LikeTensorBoard, LikeMLflow, LikeComet]


@pytest.mark.parametrize("kind", KINDS)
def test_a_logger_that_takes_pictures_gets_it(kind):
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    logger = kind()
    assert log_image(logger, "preview", image, 12)
    ((name, pixels, step),) = logger.pictures
    assert (name, step) == ("preview", 12)
    assert np.array_equal(pixels, (image.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0))


def test_one_that_takes_none_is_left_alone(tmp_path):
    assert not log_image(CSVLogger(tmp_path), "preview", torch.zeros(3, 4, 4), 0)


def test_previews_and_curves_go_to_all_loggers_at_once(tmp_path):
    loggers = [kind() for kind in KINDS]
    trainer = tiny_trainer(
        tmp_path,
        max_steps=1,
        callbacks=[PreviewGrid(images=1, size=16)],
        logger=[*loggers, CSVLogger(tmp_path)],
        log_every_n_steps=1,
    )
    trainer.fit(tiny_module(losses={"mse": ImageTerm(MSELoss())}), loader(1), loader(1))
    for logger in loggers:
        ((name, pixels, step),) = logger.pictures
        assert (name, pixels.shape, step) == ("preview", (16, 64, 3), 1)
        assert np.array_equal(pixels, loggers[0].pictures[0][1])
        assert "train/loss" in logger.curves
