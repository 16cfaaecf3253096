"""Batches of the user's own data train, or are explained."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from fluxsr.data import LRBatch, SRBatch
from fluxsr.training import as_batch
from tests.training.conftest import tiny_batch, tiny_module, tiny_trainer

LR, HR = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize(
    "batch", [(LR, HR), [LR, HR], {"lr_image": LR, "hr_image": HR}, {"hr_image": HR, "lr_image": LR, "noise": None}]
)
def test_pairs_and_dictionaries_are_batches(batch):
    made = as_batch(batch)
    assert isinstance(made, SRBatch) and made.lr_image is LR and made.hr_image is HR and made.noise is None
    assert made.index.tolist() == [0, 1]
    tiny_trainer(max_steps=1).fit(tiny_module(), DataLoader([batch], batch_size=None))


def test_the_librarys_own_pass_and_images_alone_are_for_prediction():
    own = tiny_batch()
    assert as_batch(own) is own
    for batch in (LR, {"lr_image": LR}):
        assert isinstance(as_batch(batch), LRBatch) and as_batch(batch).lr_image is LR
    (made,) = tiny_trainer().predict(tiny_module(), DataLoader([LR], batch_size=None))
    assert made.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("batch", [{"image": HR}, (HR, LR), (HR[0], LR[0]), "a name", (LR, HR, HR), 3])
def test_everything_else_is_explained(batch):
    with pytest.raises(ValueError, match="lr_image"):
        as_batch(batch)


@pytest.mark.parametrize("height", [15, 0])
def test_sides_that_are_no_multiples_are_refused(height):
    with pytest.raises(ValueError, match="multiples"):
        as_batch((torch.rand(1, 3, height, 16), torch.rand(1, 3, 64, 64)))


def test_the_first_batch_of_a_users_own_is_looked_at():
    """Without a loss on images nothing else sees their values."""
    hr_image = torch.rand(2, 3, 32, 32)
    lr_image = hr_image[..., ::4, ::4]

    def train(scale, shift):
        own = [{"lr_image": lr_image * scale + shift, "hr_image": hr_image * scale + shift}]
        tiny_trainer(max_steps=1).fit(tiny_module(), DataLoader(own, batch_size=None))

    train(1, 0)
    with pytest.raises(ValueError, match="divide by 255"):
        train(255, 0)
    with pytest.warns(UserWarning, match=r"\(x \+ 1\) / 2"):
        train(2, -1)
