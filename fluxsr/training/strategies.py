"""Shards training by FSDP2 in Lightning, keeps its processes in step, and writes checkpoints that any number can load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy, StrategyRegistry
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from fluxsr.models import FluxBackbone
from fluxsr.models.adapters import lora_layers
from fluxsr.models.devices import check_torch
from fluxsr.models.features import find_blocks
from fluxsr.models.weight_files import like, public_parameters, whole
from fluxsr.protocols import VelocityModel

DONE = -1  # what a process says that wants no more passes


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's ``ModelParallelStrategy`` as fully sharded data parallelism: every process holds its part of each block.

    It differs from the parent in three ways. All devices shard data, and none splits tensors. It gathers only what is trained.
    It writes the same single-file checkpoints as training on one device or with DDP, so that each loads the others'.
    (Lightning's own gathers the frozen base too, and numbers the optimizer's states by all parameters, trained or not.)

    ``strategy="fsdp2"`` names it, in YAML and in ``Trainer``.

    Args:
        process_group_backend: Name of the backend; by default nccl on GPUs and gloo on CPUs.

    Raises:
        ValueError: If torch is older than 2.11, the first whose FSDP2 trains adapters on a frozen base.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        check_torch("2.11", "FSDP2 with adapters on a frozen base (strategy fsdp2)")
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    def setup_environment(self) -> None:
        """Put all processes on the data-parallel side of the mesh."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The trainer restores the optimizer, from what :meth:`load_checkpoint` read."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what the module keeps in checkpoints, in one piece."""
        assert self.lightning_module is not None
        return _whole(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's state as it would be on one device."""
        return _whole(optimizer.state_dict())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write the file, on the first process, through the checkpoint plugin."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file, on every process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give every process its part of the weights."""
        assert self.lightning_module is not None
        own = public_parameters(self.lightning_module)
        state = {key: like(value, own[key]) if key in own else value for key, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give every process its part of the optimizers' states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            # States are numbered in the order of the parameter groups.
            numbers = [index for group in state["param_groups"] for index in group["params"]]
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            owners = dict(zip(numbers, parameters, strict=True))
            shared = {index: _shared(values, owners[index]) for index, values in state["state"].items()}
            optimizer.load_state_dict({**state, "state": shared})


# Lightning's own list of names for strategies: `--trainer.strategy fsdp2`.
StrategyRegistry.register("fsdp2", FSDP2Strategy, override=True)


def shard_backbone(backbone: nn.Module, mesh: Any) -> None:
    """Shard a velocity model in place by FSDP2's ``fully_shard``, over a one-dimensional mesh.

    Of a FLUX every block is a unit, and so are, within it, the matrices of each adapter: FSDP2 needs one dtype in a unit, and
    the adapters are float32 on a bfloat16 base. What lies outside the blocks is one unit more. Any other model is one unit.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not isinstance(backbone, FluxBackbone):
        fully_shard(backbone, mesh=mesh)
        return
    for unit in [*find_blocks(backbone), backbone.transformer]:
        adapters: dict[str, list[nn.Module]] = {}
        for layer in lora_layers(unit).values():
            for name in layer.lora_A:
                pair = (layer.lora_A[name], layer.lora_B[name])
                # Around the blocks, those inside of them are units already.
                adapters.setdefault(name, []).extend(one for one in pair if not isinstance(one, FSDPModule))
        for matrices in adapters.values():
            if matrices:
                fully_shard(matrices, mesh=mesh)
        fully_shard(unit, mesh=mesh)


def _whole(state: Mapping[str, Any]) -> dict[str, Any]:
    return tree_map_only(Tensor, lambda tensor: whole(tensor).detach().cpu(), dict(state))


def _shared(values: Mapping[str, Any], owner: Tensor) -> dict[str, Any]:
    """Return one parameter's states, sharded as it is where they have its shape (a step count has not)."""
    return {
        key: like(value, owner) if isinstance(value, Tensor) and value.shape == owner.shape else value
        for key, value in values.items()
    }


def check_strategy(strategy: Any, quantization: str | None) -> None:
    """Refuse what would fail late or train wrongly under a strategy that shards, quantized weights among them."""
    if not isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        return
    name = type(strategy).__name__
    if quantization is not None:
        raise ValueError(
            f"{name} can't shard {quantization} weights (they would fail, or be gathered wrongly, without a word): train with "
            "strategy ddp, where every GPU holds the small base, or without quantize"
        )
    if not isinstance(strategy, FSDP2Strategy):
        # FSDP flattens the weights of a unit into one tensor of one dtype, and here float32 adapters lie on a bfloat16 base.
        # ModelParallelStrategy numbers the optimizer's states by frozen parameters too: its checkpoints don't load elsewhere.
        raise ValueError(
            f"{name} can't be used here, for its checkpoints or the dtypes of adapters: set strategy to fsdp2"
        )


def average_whole(parameters: Iterable[Tensor]) -> None:
    """Take the mean over processes of gradients that FSDP2 knows nothing of: of weights that every process holds whole.

    These are an adversary's heads and an adapter of the autoencoder's encoder. After a second backward pass of one step the
    mean of means is taken, which changes nothing. All processes hand over the same parameters in the same order.
    """
    for parameter in parameters:
        if parameter.grad is not None and not hasattr(parameter, "full_tensor"):
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def clip_norm(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale gradients, some sharded and some whole, down to a common norm; torch's own function takes either kind, not both."""
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

    They exchange one number over gloo, so no GPU is waited for. The zeros have ``latent_channels``, and ``time`` is one at
    which every model can be called.
    """

    def __init__(
        self, models: dict[str, VelocityModel], latent_channels: int, time: float, device: torch.device
    ) -> None:
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
        """Make the passes that other processes still make, until all are done."""
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
        """Return whose turn it is: passes without gradient first, then the one with gradient that all want."""
        everyone = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world)]
        distributed.all_gather(everyone, torch.tensor([wanted]), group=self._group)
        codes = {int(one) for one in everyone}
        without = [code for code in codes if code != DONE and not code % 2]
        if without:
            return min(without)
        if len(codes) > 1:
            raise ValueError(
                "the objective makes different calls with gradient on different processes, and sharded weights need the same: "
                "make the calls in every case, or train with strategy ddp"
            )
        return codes.pop()

    def _help(self, turn: int) -> None:
        name = list(self._models)[turn // 2]
        with torch.no_grad():
            zeros = torch.zeros(self._shape, device=self._device)
            self._models[name](zeros, torch.full((1,), self._time, device=self._device))
