"""Names weights as files know them: without what a wrapper around a module adds."""

from __future__ import annotations

from torch import nn

# torch.compile's, and PyTorch's wrapper of activation checkpointing.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")


def public_name(name: str) -> str:
    """Return a weight's name without wrappers: ``backbone._orig_mod.linear.weight`` is ``backbone.linear.weight``.

    Checkpoints, adapters and exported files hold these names, so a compiled model and a plain one read the same files.
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside of torch.compile's wrapper, or the module itself."""
    return getattr(module, "_orig_mod", module)


def public_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's parameters by their public names."""
    return {public_name(name): parameter for name, parameter in module.named_parameters()}
