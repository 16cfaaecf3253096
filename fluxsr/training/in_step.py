"""Keeping processes that share sharded weights in step: every forward pass of a model needs all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fluxsr.protocols import VelocityModel

DONE = -1


class InStep:
    """Lets every process make the passes that any of them makes.

    FSDP2 gathers a block's weights from all processes in each forward pass, so a process that makes a pass alone waits for
    ever: in validation on photos of different sizes in tiles, in an objective that skips a call for the rows that it got, in
    pictures that the first process draws. Before each call the processes tell each other what they want to call. Those that
    want something else, or nothing any more, make that pass too, on zeros, and throw the result away.

    Args:
        models: The velocity models by name.
        latent_channels: Channels of the zeros.
        time: A time at which every model can be called.
        device: Where the zeros lie.

    What they tell each other is one number over gloo, so no GPU is waited for.
    """

    def __init__(
        self, models: dict[str, VelocityModel], latent_channels: int, time: float, device: torch.device
    ) -> None:
        from torch import distributed

        self._models = models
        self._numbers = {name: number for number, name in enumerate(models)}
        self._shape = (1, latent_channels, 16, 16)
        self._time = time
        self._device = device
        self._owed: list[Tensor] = []
        self._world = distributed.get_world_size()
        self._group: Any = None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")

    def velocity(self, name: str) -> VelocityModel:
        """Return a model whose calls all processes make together."""

        def call(xt: Tensor, t: Tensor) -> Tensor:
            self._shape = (1, *xt.shape[1:])
            wanted = 2 * self._numbers[name] + torch.is_grad_enabled()
            while (turn := self._meet(wanted)) != wanted:
                self._help(turn)
            return self._models[name](xt, t)

        return call

    def finish(self) -> Tensor | None:
        """Make the passes that other processes still make, until all are done.

        Returns:
            Zero with the gradient of the passes that others trained on and this process only helped with: add it to the loss,
            so that the backward passes meet, too. ``None`` where there were none.
        """
        while (turn := self._meet(DONE)) != DONE:
            self._help(turn)
        owed, self._owed = self._owed, []
        return torch.stack(owed).sum() if owed else None

    def _meet(self, wanted: int) -> int:
        """Return whose turn it is: the first model that any process wants to call."""
        from torch import distributed

        all_wanted = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world)]
        distributed.all_gather(all_wanted, torch.tensor([wanted]), group=self._group)
        return min((int(one) for one in all_wanted if int(one) != DONE), default=DONE)

    def _help(self, turn: int) -> None:
        name = list(self._models)[turn // 2]
        with torch.set_grad_enabled(bool(turn % 2)):
            zeros = torch.zeros(self._shape, device=self._device)
            made = self._models[name](zeros, torch.full((1,), self._time, device=self._device))
        if turn % 2:
            self._owed.append(0 * made.float().sum())
