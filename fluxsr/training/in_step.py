"""Keeps processes that share sharded weights in step, since every forward pass of a model needs all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.models.weight_files import whole
from fluxsr.protocols import VelocityModel

DONE = -1


def average_whole(parameters: Iterable[Tensor]) -> None:
    """Take the mean over processes of gradients that FSDP2 knows nothing of: of weights that every process holds whole.

    These are an adversary's heads and an adapter of the autoencoder's encoder. After a second backward pass of one step the
    mean of means is taken, which changes nothing.

    Args:
        parameters: All that is trained, the same in the same order on every process.
    """
    from torch import distributed

    for parameter in parameters:
        if parameter.grad is not None and not hasattr(parameter, "full_tensor"):
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def clip_norm(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale gradients, some sharded and some whole, down to a norm. Every process must call it.

    torch's own function takes either kind, not both.

    Args:
        parameters: Parameters that share the norm.
        largest: Norm above which they are scaled.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [whole(torch.linalg.vector_norm(gradient.float())).cpu() for gradient in gradients]
    scale = largest / (float(torch.stack(norms).norm()) + 1e-6) if norms else 1.0
    if scale < 1:
        for gradient in gradients:
            gradient *= scale


class InStep:
    """Lets every process make the passes that any of them makes.

    FSDP2 gathers a block's weights from all processes in each forward pass, so a process that makes a pass alone would wait
    for ever. That would happen in validation on photos of different sizes in tiles, and in pictures that the first process
    makes. An objective that skips a call for the rows that it got is a third case. So the processes exchange, before each
    call, what they want to call. A pass without gradient is made by all: those that want another one, or none any more, make
    it on zeros and discard the result. A pass with gradient waits until all want it, since its backward pass needs all of
    them, too.

    Args:
        models: The velocity models by name.
        latent_channels: Channels of the zeros.
        time: A time at which every model can be called.
        device: Device of the zeros.

    They exchange one number over gloo, so no GPU is waited for.
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

    def finish(self) -> None:
        """Make the passes that other processes still make, until all are done.

        Raises:
            ValueError: If another process still wants a pass with gradient, for example because an objective trains on more
                states there.
        """
        while (turn := self._meet(DONE)) != DONE:
            self._help(turn)

    def end_loop(self, trainer: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Call :meth:`finish` where a batch was this process' last of a validation, test or prediction.

        Here and not at the end of the epoch: before that Lightning averages what was logged, over all processes.
        """
        if trainer.sanity_checking:
            counts = trainer.num_sanity_val_batches
        else:
            function = trainer.state.fn.value
            stage = {"fit": "val", "validate": "val"}.get(function, function)
            counts = getattr(trainer, f"num_{stage}_batches")
        if batch_idx + 1 == counts[dataloader_idx]:
            self.finish()

    def _meet(self, wanted: int) -> int:
        """Return whose turn it is: passes without gradient first, then the one with gradient that all want.

        Raises:
            ValueError: On every process, if they want different passes with gradient.
        """
        from torch import distributed

        everyone = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world)]
        distributed.all_gather(everyone, torch.tensor([wanted]), group=self._group)
        codes = {int(one) for one in everyone}
        without = [code for code in codes if code != DONE and not code % 2]
        if without:
            return min(without)
        if len(codes) > 1:
            raise ValueError(
                "the objective makes different calls with gradient on different processes, and sharded weights need the same "
                "on all: make the calls in every case, or train with strategy ddp"
            )
        return codes.pop()

    def _help(self, turn: int) -> None:
        name = list(self._models)[turn // 2]
        with torch.no_grad():
            zeros = torch.zeros(self._shape, device=self._device)
            self._models[name](zeros, torch.full((1,), self._time, device=self._device))
