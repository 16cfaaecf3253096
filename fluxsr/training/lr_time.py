"""Settles T_L, the time of the LR latents, before anything is built on it: read from a checkpoint, or measured on the data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from fluxsr.flows import FlowTrajectoryDistillation, LatentPair, LRTimeEstimate, calibrate_lr_time
from fluxsr.training.batches import as_batch

# Our default: T_L's spread over 32 images of one degradation is a tenth of its value, and their mean's a fiftieth.
IMAGES = 32
# A given T_L that is so many times as large as the measured one, or as small, asks for another strength of the velocity.
FACTOR = 1.5


def settle(module: Any, stage: str) -> None:
    """Give the objective its T_L where it is ``auto``, and compare a given one with the data. Every process must call it.

    A resumed run, and any other work with a checkpoint, reads T_L from the checkpoint. A new run measures it on
    its first batches, and all processes take the first one's value.

    Args:
        module: The :class:`fluxsr.training.OneStepSR` in a Trainer.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.

    Raises:
        ValueError: If it is ``auto`` and there is nothing to take it from.
    """
    objective, trainer = module.objective, module.trainer
    if not isinstance(objective, FlowTrajectoryDistillation):
        return
    path = trainer.ckpt_path
    if path is not None:
        if not objective.is_settled and Path(path).is_file():
            take_lr_time(module, torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"])
        return
    if stage != "fit" or (objective.is_settled and not module.check_lr_time):
        return
    try:
        own: Any = measure(module)
    except ValueError as error:
        own = str(error)
    # Every process saw its own images, and one value must rule; also where only some could measure.
    found: LRTimeEstimate | str = trainer.strategy.broadcast(own)
    if isinstance(found, str):
        if objective.is_settled:
            return
        raise ValueError(f"lr_time can't be measured: {found}; or give a number, 0.5 for FLUX's latents")
    if not objective.is_settled:
        objective.lr_time = found.lr_time
        rank_zero_info(f"measured {found}")
    elif not 1 / FACTOR <= objective.lr_time / found.lr_time <= FACTOR:
        rank_zero_warn(
            f"lr_time is {objective.lr_time:g}, and this data asks for {found.lr_time:.2f}, by the rule {objective.rule} on "
            f"{len(found.per_image)} images. Set lr_time: auto to take that"
        )


def take_lr_time(module: Any, state: Mapping[str, Any]) -> None:
    """Set the objective's T_L, if it has one, to what a checkpoint's state dict of the module says."""
    if isinstance(module.objective, FlowTrajectoryDistillation):
        module.objective.take_state(state, "objective.")


def measure(module: Any) -> LRTimeEstimate:
    """Measure T_L on the first training batches, at least 32 images of this process; nothing is drawn from global generators.

    Args:
        module: The :class:`fluxsr.training.OneStepSR` in a Trainer.

    Raises:
        ValueError: See :func:`fluxsr.flows.calibrate_lr_time`.
    """
    device = module.trainer.strategy.root_device
    module.autoencoder.to(device)  # where the Trainer is about to move it anyway
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Lightning's advice on the number of workers comes again when the training itself begins.
        warnings.simplefilter("ignore")
        loader: Any = module.trainer.fit_loop._data_source.dataloader()
        return calibrate_lr_time(_pairs(module, loader, device), module.objective.rule)


def _pairs(module: Any, loader: Iterable[Any], device: torch.device) -> Iterator[LatentPair]:
    seen = 0
    for step, batch in enumerate(loader):
        made = as_batch(module.transfer_batch_to_device(batch, device, 0))
        yield module.encode(made, step)
        seen += len(made.hr_image)
        if seen >= IMAGES:
            return
