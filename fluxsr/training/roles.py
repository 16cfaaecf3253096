"""The frozen velocity models that an objective wants beside the student: a teacher, a moving average."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.models import FluxBackbone
from fluxsr.models.adapters import is_adapter_parameter
from fluxsr.protocols import VelocityModel

TARGET = "target"  # the role that follows the student


class Roles(nn.Module):
    """Velocity models by role: adapter sets on the student's own frozen base, or frozen copies where it is trained in full.

    Args:
        backbone: the student.
        names: the roles that the objective wants (:attr:`fluxsr.flows.FlowObjective.roles`).
        teacher: the model of the role ``teacher``, where it is not an adapter of the backbone; it is frozen.

    Raises:
        ValueError: if a teacher is wanted and there is none, or is given and not wanted.
    """

    def __init__(self, backbone: nn.Module, names: Sequence[str], teacher: nn.Module | None = None) -> None:
        super().__init__()
        self._student = [backbone]  # in a list, since its owner registers it
        self.models = nn.ModuleDict()
        if teacher is not None:
            if "teacher" not in names:
                raise ValueError("a teacher was given, but this objective uses none; leave it out")
            self.models["teacher"] = teacher.requires_grad_(False)
        for name in names:
            if name in self.models or name in self._adapters():
                continue
            if name != TARGET:
                raise ValueError(
                    f"the objective needs a {name}, the frozen model of the stage before: give load_flux(teacher_lora=...) its "
                    f"adapter file, or OneStepSR({name}=...) a velocity model"
                )
            if self._adapters():
                self._backbone.adapters.copy(self._backbone.default_role, TARGET)
            else:
                self.models[TARGET] = deepcopy(backbone).requires_grad_(False)

    def velocity(self, name: str) -> VelocityModel:
        """Return the velocity model of a role."""
        return self.models[name] if name in self.models else self._backbone.as_role(name)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the target: ``target = decay * target + (1 - decay) * student``; buffers are copied."""
        student, target = (
            self._weights(self._backbone.default_role if self._adapters() else None),
            self._weights(TARGET),
        )
        torch._foreach_lerp_(list(target.values()), [student[name].detach() for name in target], 1 - decay)
        if TARGET in self.models:
            for copy, buffer in zip(self.models[TARGET].buffers(), self._backbone.buffers(), strict=True):
                copy.copy_(buffer)

    def is_target(self, parameter_name: str) -> bool:
        """Say whether a parameter's name, as its owner knows it, belongs to the moving average: a checkpoint must hold it."""
        return f".models.{TARGET}." in parameter_name or is_adapter_parameter(parameter_name, TARGET)

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
