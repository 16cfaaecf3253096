"""Makes the optimizer of what is trained, and implements two that torch lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fluxsr.models.devices import check_torch


def student_optimizer(
    parameters: Iterable[nn.Parameter],
    others: Iterable[nn.Parameter],
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None,
    make_scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None,
) -> dict[str, Any]:
    """Return what Lightning's ``configure_optimizers`` takes for the parameters that no other optimizer trains.

    Without ``make_optimizer`` it is AdamW at 5e-5 (ours, as the papers publish none). A scheduler is stepped every step,
    ``ReduceLROnPlateau`` every epoch: torch's own watches ``train/loss`` in mode ``min`` and ``val/psnr_y`` in mode ``max``,
    Lightning's what its ``monitor`` names.
    """
    apart = set(map(id, others))
    trainable = [parameter for parameter in parameters if id(parameter) not in apart]
    if not trainable:
        raise ValueError("nothing is trainable: give the backbone a LoRA (trainable='lora') or train it in full")
    optimizer = torch.optim.AdamW(trainable, lr=5e-5) if make_optimizer is None else make_optimizer(trainable)
    if make_scheduler is None:
        return {"optimizer": optimizer}
    scheduler = make_scheduler(optimizer)
    plan: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        # torch's own does not say what it watches; Lightning's, of the same name in lightning.pytorch.cli, does.
        watched = getattr(scheduler, "monitor", "val/psnr_y" if scheduler.mode == "max" else "train/loss")
        plan = {"scheduler": scheduler, "interval": "epoch", "monitor": watched}
    return {"optimizer": optimizer, "lr_scheduler": plan}


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest: the fastest way known to us to train a small transformer from random weights.

    Muon (Jordan et al. 2024) replaces a matrix' momentum by the nearest orthogonal matrix. Its steps are scaled to the size
    of AdamW's (Liu et al. 2025, arXiv 2502.16982), so one learning rate and one schedule serve both. Both are torch's own;
    this class makes one optimizer of them, as Lightning's automatic optimization needs it.

    Args:
        params: The trained parameters, all with the same settings. Those of two dimensions, also a LoRA's, are Muon's.
        lr: Learning rate of both.
        momentum: Muon's.
        betas: Decays of AdamW's two moments.
        weight_decay: Decoupled, of both.

    Raises:
        ValueError: If there is nothing to train, or groups or names instead of parameters, or nothing has two dimensions:
            that is plain AdamW.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.01,
    ) -> None:
        check_torch("2.9", "MuonAdamW, whose Muon is torch's own,")
        params = list(params)
        if not params or not all(isinstance(parameter, torch.Tensor) for parameter in params):
            got = type(params[0]).__name__ if params else "none"
            raise ValueError(f"give the parameters themselves, such as model.parameters(), not groups; got {got}")
        matrices = [parameter for parameter in params if parameter.ndim == 2]
        rest = [parameter for parameter in params if parameter.ndim != 2]
        if not matrices:
            raise ValueError("none of these parameters is a matrix, which Muon trains: take torch.optim.AdamW")
        matched = torch.optim.Muon(
            matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        plain = [torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay)] if rest else []
        self._parts: list[torch.optim.Optimizer] = [matched, *plain]
        # Every group has every key: schedulers such as OneCycleLR look for the same ones in all groups.
        defaults = {key: value for part in self._parts for key, value in part.defaults.items()}
        super().__init__([part.param_groups[0] for part in self._parts], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Train one step; returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Loading a state makes new groups and a new state, so they are handed on at every step.
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss


class AdamW8bit(torch.optim.AdamW):
    """AdamW whose moments take a byte each instead of four (bitsandbytes; Dettmers et al. 2021, arXiv 2110.02861).

    Constructing it returns bitsandbytes' own optimizer. Only on the meta device is it an instance of this class, so that
    `fluxsr plan` works without bitsandbytes and without a GPU.

    Args:
        params: The trained parameters, on CUDA.
        lr: Learning rate.
        betas: Decays of the two moments.
        weight_decay: Decoupled, as AdamW's.

    Raises:
        ValueError: If bitsandbytes or CUDA is missing.
    """

    def __new__(
        cls,
        params: Iterable[nn.Parameter],
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
    ) -> Any:
        """Return bitsandbytes' optimizer."""
        if isinstance(params, list) and params and all(parameter.is_meta for parameter in params):
            return super().__new__(cls)
        try:
            import bitsandbytes
        except ImportError as error:
            raise ValueError(f"AdamW8bit needs the extra quant: pip install 'fluxsr[quant]' ({error})") from None
        if not torch.cuda.is_available():
            raise ValueError("AdamW8bit needs a CUDA device; take torch.optim.AdamW here")
        return bitsandbytes.optim.AdamW8bit(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)
