"""Shards training by FSDP2 in Lightning, with checkpoints that any number of processes can load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy, StrategyRegistry
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from fluxsr.models import FluxBackbone
from fluxsr.models.adapters import lora_layers
from fluxsr.models.devices import check_torch
from fluxsr.models.features import find_blocks
from fluxsr.models.weight_files import like, public_parameters, whole


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
            owners = dict(
                zip(
                    (index for group in state["param_groups"] for index in group["params"]),
                    (parameter for group in optimizer.param_groups for parameter in group["params"]),
                    strict=True,
                )
            )
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
