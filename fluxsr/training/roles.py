"""Manages the frozen velocity models that an objective needs beside the student: a teacher, a moving average."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.flows import Role
from fluxsr.models import FluxBackbone
from fluxsr.models.adapters import is_adapter_parameter
from fluxsr.protocols import VelocityModel

STUDENT = "student"  # the name of the model that is trained, among the velocity models of a step


class Roles(nn.Module):
    """Velocity models by role: adapter sets on the student's own frozen base, or frozen copies where it is trained in full."""

    def __init__(self, backbone: nn.Module, roles: Sequence[Role], teacher: nn.Module | None = None) -> None:
        super().__init__()
        _check(roles)
        self._averages = {role.name: role.decay for role in roles if role.decay is not None}
        self._student = [backbone]  # in a list, since its owner registers it
        self.models = nn.ModuleDict()
        if teacher is not None:
            if "teacher" not in [role.name for role in roles]:
                raise ValueError("a teacher was given, but this objective uses none; leave it out")
            self.models["teacher"] = teacher.requires_grad_(False)
        for name, decay in roles:
            if name in self.models or name in self._adapters():
                continue
            if decay is None:
                raise ValueError(
                    f"the objective needs a {name}, the frozen model of the stage before: load_flux(teacher_lora=...) takes "
                    f"its adapter file, OneStepSR({name}=...) a velocity model"
                )
            if self._adapters():
                self._backbone.adapters.copy(self._backbone.default_role, name)
            else:
                # In float32, whatever the student has: an average's small steps would be rounded away.
                self.models[name] = deepcopy(backbone).requires_grad_(False).float()

    def velocity(self, name: str) -> VelocityModel:
        """Return the velocity model of a role."""
        return self.models[name] if name in self.models else self._backbone.as_role(name)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averages: ``role = decay * role + (1 - decay) * student``; buffers are copied."""
        for name, decay in self._averages.items():
            student = self._weights(self._backbone.default_role if self._adapters() else None)
            average = self._weights(name)
            weights = [student[key].detach().to(weight.dtype) for key, weight in average.items()]
            torch._foreach_lerp_(list(average.values()), weights, 1 - decay)
            if name in self.models:
                for copy, buffer in zip(self.models[name].buffers(), self._backbone.buffers(), strict=True):
                    copy.copy_(buffer)

    def is_average(self, parameter_name: str) -> bool:
        """Say whether a parameter's name, as its owner knows it, belongs to a moving average: a checkpoint must hold it."""
        return any(
            f".models.{name}." in parameter_name or is_adapter_parameter(parameter_name, name)
            for name in self._averages
        )

    @property
    def _backbone(self) -> Any:
        return self._student[0]

    def _adapters(self) -> list[str]:
        """Return the roles that live on the backbone; none where it is trained in full, or is no FLUX."""
        return self._backbone.adapters.names if isinstance(self._backbone, FluxBackbone) else []

    def _weights(self, role: str | None) -> dict[str, Tensor]:
        """Return a role's weights under names that student and target share; ``None`` is a student trained in full."""
        if role is None:
            return dict(self._backbone.named_parameters())
        if role in self.models:
            return dict(self.models[role].named_parameters())
        return self._backbone.adapters.state_dict(role)


def _check(roles: Sequence[Role]) -> None:
    """Raise ValueError unless these are records with names of their own and decays that make an average."""
    for number, role in enumerate(roles):
        if not isinstance(role, Role):
            raise ValueError(f"an objective's roles are records, Role({role!r}) or Role({role!r}, decay=0.95)")
        if not str(role.name).isidentifier() or role.name in (STUDENT, *(other.name for other in roles[:number])):
            raise ValueError(f"a role needs a name of its own, which forward() takes as a keyword, got {role!r}")
        if role.decay is not None and not (isinstance(role.decay, int | float) and 0 <= role.decay < 1):
            raise ValueError(f"a role's decay must lie in [0, 1), as in Role({role.name!r}, decay=0.95), got {role!r}")
