"""Shards a backbone over processes by FSDP2, in units of one dtype each."""

from __future__ import annotations

from typing import Any

from torch import nn

from fluxsr.models.adapters import AdapterRoles
from fluxsr.models.features import find_blocks


def shard_backbone(backbone: nn.Module, mesh: Any) -> None:
    """Shard a velocity model in place by FSDP2's ``fully_shard``.

    Of a FLUX every block is a unit, and so are, within it, the matrices of each adapter: FSDP2 needs one dtype in a unit, and
    the adapters are float32 on a bfloat16 base. What lies outside the blocks is one unit more. Any other model is one unit.

    Args:
        backbone: A :class:`fluxsr.models.FluxBackbone` or any module, not compiled.
        mesh: Mesh of the data-parallel processes, one-dimensional.
    """
    from torch.distributed.fsdp import fully_shard

    transformer: Any = getattr(backbone, "transformer", None)
    if transformer is None:
        fully_shard(backbone, mesh=mesh)
        return
    for unit in [*find_blocks(transformer), transformer]:
        for matrices in _adapters(unit):
            fully_shard(matrices, mesh=mesh)
        fully_shard(unit, mesh=mesh)


def _adapters(unit: nn.Module) -> list[list[nn.Module]]:
    """Return the matrices of each adapter in a unit that no inner unit has yet."""
    from torch.distributed.fsdp import FSDPModule

    found: dict[str, list[nn.Module]] = {}
    for layer in AdapterRoles.layers_of(unit):
        for name in layer.lora_A:
            found.setdefault(name, []).extend([layer.lora_A[name], layer.lora_B[name]])
    free = ([matrix for matrix in matrices if not isinstance(matrix, FSDPModule)] for matrices in found.values())
    return [matrices for matrices in free if matrices]
