"""Starts one process for each device of a machine or a job, and lets them share work and results.

Lightning Fabric's launcher starts them, or finds those that torchrun or SLURM's ``srun`` started. They exchange small Python
objects over gloo, on whatever device they compute; it is loaded only where there is more than one process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

_PARENT = "FLUXSR_FIRST_PROCESS"
# Shares differ in length; a process that ends closes its connections, which the others notice at once.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """The processes that do one job, as one of them sees it.

    Attributes:
        rank: Number of this process.
        world: Number of processes.
        group: Group of torch.distributed over which they exchange objects.
    """

    rank: int = 0
    world: int = 1
    group: Any = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that prints, and writes what there is one of."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Return what this process does of ``items``, which all of them must have in the same order."""
        return list(items[self.rank :: self.world])

    def gather(self, value: T) -> list[T]:
        """Return every process's value in the order of their ranks; all wait here for each other."""
        values, errors = self._exchange(value, "")
        if any(errors):
            raise _FailedElsewhere(next(filter(None, errors)))
        return values

    def _exchange(self, value: T, error: str) -> tuple[list[T], list[str]]:
        if self.world == 1:
            return [value], [error]
        from torch.distributed import all_gather_object

        messages: list[tuple[T, str]] = [(value, error)] * self.world
        try:
            all_gather_object(messages, (value, error), self.group)
        except RuntimeError as lost:
            raise _FailedElsewhere("another process of this job was ended; the same command goes on") from lost
        return [one for one, _ in messages], [said for _, said in messages]


ALONE = Processes()


class _FailedElsewhere(ValueError):
    """What another process said before it ended."""


@contextmanager
def launch(devices: int | Literal["auto"] = 1, device: str = "auto") -> Iterator[Processes]:
    """Run the body in one process for each device; a mistake that all of them find is raised by the first one alone.

    Args:
        devices: Devices of this machine to use, a process for each: a number, or auto for every GPU; torchrun's and
            srun's processes are found.
        device: Device to run on: auto, cuda or cpu.

    Yields:
        The processes.

    Raises:
        ValueError: If there are not so many devices, or another process failed.
    """
    place = _find_started(devices) or _Place(_count(devices, device))
    if place.devices * place.nodes == 1:
        yield ALONE
        return
    processes = _start(place, device)
    try:
        yield processes
        processes.gather(None)
    except KeyboardInterrupt:
        if processes.first:
            raise
        raise SystemExit(130) from None
    except _FailedElsewhere:
        if processes.first:
            raise
        # The first process's exit code counts. Lightning kills it as soon as one of those that it started has another.
        raise SystemExit(0) from None
    except Exception as error:
        try:
            processes._exchange(None, str(error) or type(error).__name__)
        except _FailedElsewhere:
            raise error from None
        if processes.first or not isinstance(error, (ValueError, OSError)):
            raise
        raise SystemExit(0) from None
    finally:
        leave_group()


def leave_group() -> None:
    """Leave torch's process group, if this process is in one; else the interpreter now and then aborts at its end.

    The threads of gloo are what it aborts on. A group of another kind is left only where no error is on its way: it might wait
    for work that other processes never do.
    """
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    if sys.exc_info()[0] is None or torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


class _Place(NamedTuple):
    """Where processes run."""

    devices: int
    nodes: int = 1
    started_by: Literal["", "torchrun", "SLURM"] = ""


def _find_started(devices: int | Literal["auto"]) -> _Place | None:
    """Return the processes that torchrun or srun started, or None."""
    given = os.environ
    if {"GROUP_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"} <= given.keys():
        world, local = int(given["WORLD_SIZE"]), int(given["LOCAL_WORLD_SIZE"])
        place = _Place(local, world // local, "torchrun")
    # Of srun's own step: within a batch script, which is one process, SLURM_NTASKS is what was asked for.
    elif int(given.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        world, nodes = int(given["SLURM_STEP_NUM_TASKS"]), int(given.get("SLURM_STEP_NUM_NODES", 1))
        place = _Place(world // nodes, nodes, "SLURM")
    else:
        return None
    if place.devices * place.nodes != world:
        raise ValueError(f"{world} processes on {place.nodes} machines: start as many on each of them")
    if devices not in (1, "auto", place.devices):
        raise ValueError(f"--devices {devices}: {place.started_by} started {place.devices} here; leave the option out")
    return place


def _count(devices: int | Literal["auto"], device: str) -> int:
    """Return how many processes there are to be on this machine."""
    if devices == 1:
        return 1
    import torch

    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if devices == "auto":
        return max(gpus, 1)
    if devices < 1:
        raise ValueError(f"--devices must be a number from 1, or auto, got {devices}")
    if device not in ("auto", "cuda", "cpu") or (device == "auto" and not gpus and torch.backends.mps.is_available()):
        raise ValueError(f"--devices {devices} needs --device cuda or cpu, got {device}")
    if gpus and devices > gpus:
        raise ValueError(f"--devices {devices}: there are {gpus} GPUs here")
    return devices


def _start(place: _Place, device: str) -> Processes:
    """Start the other processes, or join them, and choose this one's GPU."""
    import torch
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning.fabric.strategies.ddp import DDPStrategy

    environment: ClusterEnvironment
    if place.started_by == "torchrun":
        environment = TorchElasticEnvironment()
    elif place.started_by == "SLURM":
        environment = SLURMEnvironment(auto_requeue=False)
    else:
        environment = LightningEnvironment()
        if not environment.creates_processes_externally:
            os.environ[_PARENT] = str(os.getpid())  # the others may look for it when it is gone already
        elif _PARENT in os.environ:
            threading.Thread(target=_end_with, args=(int(os.environ[_PARENT]),), daemon=True).start()
    # Fabric only starts and connects them: what they send each other lies in host memory, on machines with GPUs, too.
    fabric = Fabric(
        accelerator="cpu",
        devices=place.devices,
        num_nodes=place.nodes,
        strategy=DDPStrategy(process_group_backend="gloo"),
        plugins=[environment],
    )
    logging.disable(logging.INFO)  # a banner at every start
    try:
        fabric.launch()
    finally:
        logging.disable(logging.NOTSET)
    if device in ("auto", "cuda") and torch.cuda.is_available():
        # A SLURM task may see its own GPU alone.
        torch.cuda.set_device(fabric.local_rank % torch.cuda.device_count())
    group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return Processes(fabric.global_rank, fabric.world_size, group)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, killed perhaps: what it does would be done twice by who goes on."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
