"""Measures T_L, the time of the LR latents, on samples of the data: the same number on every process."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from fluxsr.flows import LatentPair, LRTimeEstimate, calibrate_lr_time
from fluxsr.flows.calibration import Rule
from fluxsr.training.batches import as_batch, step_generator
from fluxsr.training.checkpoints import random_states, set_random_states

# Our default: T_L's spread over 32 images of one degradation is a tenth of its value, and their mean's a fiftieth.
IMAGES = 32
# A given T_L that is so many times as large as the measured one, or as small, asks for another strength of the velocity.
FACTOR = 1.5


@torch.no_grad()
def measure_lr_time(
    encode: Callable[[Any, int], LatentPair], batches: Iterable[Any], rule: Rule = "norm", seed: int = 0
) -> LRTimeEstimate:
    """Measure T_L on the first 32 images or more of some batches.

    The number depends on the arguments alone: not on the process that measures nor on the global random states, which are
    left as they were. No graph is kept, whatever the encoder trains.
    """

    def pairs() -> Iterator[LatentPair]:
        seen = 0
        for step, given in enumerate(batches):
            batch = as_batch(given)
            pair = encode(batch, step)
            if batch.noise is None:  # a training's own noise differs from process to process
                noise = torch.randn(pair.hr.shape, generator=step_generator(seed, step, "noise for T_L"))
                pair = pair._replace(noise=noise.to(pair.hr))
            yield pair
            seen += len(batch.hr_image)
            if seen >= IMAGES:
                return

    states = random_states()
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the state that users' data may draw from
    random.seed(seed)
    try:
        return calibrate_lr_time(pairs(), rule)
    finally:
        set_random_states(states)


def samples_of(source: Any) -> Iterator[Any]:
    """Yield samples of Lightning's data source one by one, spread evenly over the data: all processes get the same.

    The loader's order is neither asked nor advanced. Of a stream, or of several loaders together, the first batches are taken.
    """
    with warnings.catch_warnings():
        # Lightning's advice on the number of workers comes again when the training itself begins.
        warnings.simplefilter("ignore")
        loader = source.dataloader()
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        yield from islice(loader, IMAGES)
        return
    dataset: Any = loader.dataset
    count = min(IMAGES, len(dataset))
    for number in range(count):
        sample = dataset[number * len(dataset) // count]
        # Without automatic batching a sample is a batch.
        yield loader.collate_fn(sample if loader.batch_sampler is None else [sample])
