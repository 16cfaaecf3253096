"""Says what a module trains now: parameters, the buffers beside them, and moving averages, under their public names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fluxsr.models.weight_files import public_name, public_parameters

OBJECTIVE = "objective."  # an objective is numbers alone: state dicts hold all of them, beside what is trained


class Trained:
    """What a module trains now. Optimizers, averages, checkpoints, guards and logs ask here."""

    def __init__(self, module: nn.Module, is_average: Callable[[str], bool] = lambda name: False) -> None:
        self._module = module
        self._is_average = is_average
        self._begun: set[str] = set()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained now."""
        return {name: one for name, one in public_parameters(self._module).items() if one.requires_grad}

    def begin(self) -> dict[str, nn.Parameter]:
        """Return the parameters for an optimizer. One that is frozen later stays part of checkpoints: it was trained."""
        found = self.parameters()
        self._begun |= found.keys()
        return found

    def averages(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the moving averages."""
        return {name: one for name, one in public_parameters(self._module).items() if self._is_average(name)}

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: what is or was trained, the averages, and the buffers beside both."""
        parameters = {
            name: one
            for name, one in public_parameters(self._module).items()
            if one.requires_grad or name in self._begun or self._is_average(name)
        }
        return {**parameters, **self._buffers({id(one) for one in parameters.values()})}

    def frozen(self) -> set[str]:
        """Return the names of the rest, parameters and buffers, as the module itself knows them."""
        kept = self.state().keys()
        return {name for name, _ in _named(self._module) if public_name(name) not in kept}

    def _buffers(self, parameters: set[int]) -> dict[str, Tensor]:
        """Return the persistent buffers that belong to one of these parameters: the smallest part around both has it."""
        parts = dict(self._module.named_modules())
        found = {}
        for prefix, part in parts.items():
            for name, buffer in part.named_buffers(recurse=False):
                around = prefix
                while around and not any(True for _ in parts[around].parameters()):
                    around = around.rpartition(".")[0]
                own = not prefix or (around and any(id(one) in parameters for one in parts[around].parameters()))
                if own and name not in part._non_persistent_buffers_set:
                    found[public_name(f"{prefix}.{name}" if prefix else name)] = buffer
        return found

    def leave_frozen_out(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Rename a state dict's entries, and drop the frozen ones; sharding would gather them for nothing (a hook)."""
        kept = self.state()
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = public_name(key.removeprefix(prefix))
            value = state_dict.pop(key)
            if name in kept or name.startswith(OBJECTIVE):
                state_dict[prefix + name] = value

    def take_names(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Rename a state dict's entries to the names that the module itself has (a hook)."""
        own = {prefix + public_name(name): prefix + name for name, _ in _named(self._module)}
        for key in list(state_dict):
            if (name := own.get(public_name(key), key)) != key:
                state_dict[name] = state_dict.pop(key)


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
