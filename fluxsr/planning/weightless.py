"""The classes of a configuration without their weights: nothing is downloaded, and what is large lies on the meta device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fluxsr.models import FLUX_ARCHITECTURES, AdapterRoles, FluxBackbone, PromptEmbedding
from fluxsr.models.load import SHIPPED, shipped_file
from fluxsr.models.prompts import no_prompt
from fluxsr.models.sources import architecture_of

# FLUX.1's autoencoder, 83,819,683 parameters (its configuration on the hub).
FLUX_VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
# Its small stand-in, madebyollin/taef1.
TINY_VAE: dict[str, Any] = {"_class_name": "AutoencoderTiny", "latent_channels": 16}


@contextmanager
def weightless(text_tokens: int | None = None, lora_rank: int = 64) -> Iterator[None]:
    """In the body the library's loaders give what they would load, without weights.

    Args:
        text_tokens: of every prompt; ``None``: as many as its file has, 512 (FLUX.1-dev's) where there is no file yet.
        lora_rank: of adapters whose file is not there yet.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny
    from diffusers.utils import logging as diffusers_logging

    widths: dict[str, int] = {}

    def transformer(model: str, *args: Any, **kwargs: Any) -> nn.Module:
        from fluxsr.models.load import _transformer_class

        config = architecture(model)
        widths.update(text=config.get("joint_attention_dim", 4096), pooled=config.get("pooled_projection_dim", 768))
        dtype = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype))
        with torch.device("meta"):
            return _transformer_class(config)(**config).to(dtype)

    read_prompt = PromptEmbedding.load

    def prompt(path: str | Path) -> PromptEmbedding:
        if Path(path).is_file():
            found = read_prompt(path)
            if text_tokens is None:
                return PromptEmbedding(found.prompt_embeds.to("meta"), found.pooled_prompt_embeds.to("meta"))
        with torch.device("meta"):
            count = 512 if text_tokens is None else text_tokens
            return PromptEmbedding(torch.zeros(1, count, widths["text"]), torch.zeros(1, widths["pooled"]))

    def empty_prompt(*sizes: int) -> PromptEmbedding:
        with torch.device("meta"):
            return no_prompt(*sizes)

    read_lora = FluxBackbone.load_lora

    def lora(self: FluxBackbone, path: str | Path, role: str = "student", *, trainable: bool = True) -> None:
        if Path(path).exists():
            read_lora(self, path, role, trainable=trainable)
        else:
            self.add_lora(role, rank=lora_rank, trainable=trainable)

    add_adapter = AdapterRoles.add

    def adapter(self: AdapterRoles, *args: Any, **kwargs: Any) -> None:
        with torch.device("meta"):
            add_adapter(self, *args, **kwargs)

    with ExitStack() as stack:
        replace: Callable[..., Any] = lambda *args: stack.enter_context(patch(*args))  # noqa: E731
        replace("fluxsr.models.load._load_transformer", transformer)
        replace("fluxsr.models.prompts.PromptEmbedding.load", prompt)
        replace("fluxsr.models.flux.no_prompt", empty_prompt)
        replace("fluxsr.models.flux.FluxBackbone.load_lora", lora)
        replace("fluxsr.models.adapters.AdapterRoles.add", adapter)
        replace("fluxsr.losses.backbones.load_weights", _network_weights)
        replace("fluxsr.losses.dists.load_weights", _network_weights)
        replace("fluxsr.losses.lpips_net.load_heads", _heads)
        replace("fluxsr.losses.quality._load_clip", _clip)
        for kind in (AutoencoderKL, AutoencoderTiny):
            replace(f"diffusers.{kind.__name__}.load_config", _autoencoder_config)
            replace(f"diffusers.{kind.__name__}.from_pretrained", _autoencoder_loader(kind))
        verbosity = diffusers_logging.get_verbosity()
        diffusers_logging.set_verbosity_error()  # it remarks on every change of dtype
        try:
            yield
        finally:
            diffusers_logging.set_verbosity(verbosity)


def architecture(source: str) -> dict[str, Any]:
    """Return the configuration of the transformer that ``load_flux(source)`` would load.

    Raises:
        ValueError: if it is not known without a network.
    """
    if source in SHIPPED or source.endswith(".safetensors"):
        path = shipped_file(source) if source in SHIPPED else Path(source)
        return architecture_of(source, *_header(path))
    name = source.rsplit("/", 1)[-1].lower()
    if source in FLUX_ARCHITECTURES or (name in FLUX_ARCHITECTURES and not Path(source).is_dir()):
        return dict(FLUX_ARCHITECTURES[name])
    for inside in ("transformer", ""):
        config = _local_config(source, inside)
        if config is not None:
            return {key: value for key, value in config.items() if not key.startswith("_")}
    raise ValueError(
        f"the architecture of {source!r} is not known without a network: give one of {', '.join(FLUX_ARCHITECTURES)}, or a "
        "local folder in diffusers' layout (its config.json is enough)"
    )


def _header(path: Path) -> tuple[list[str], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(
            f"{path} does not exist yet, so its architecture is not known: plan with the model that it will be like"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            return list(file.keys()), dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); make or download it again") from error


def _local_config(source: str, subfolder: str | None) -> dict[str, Any] | None:
    """Return a ``config.json`` from a folder, or from the hub's cache on this disk."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    path = Path(source) / (subfolder or "") / "config.json"
    if not path.is_file():
        try:
            cached = try_to_load_from_cache(source, f"{subfolder}/config.json" if subfolder else "config.json")
        except HFValidationError:  # no name of a repository
            return None
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    return dict(json.loads(path.read_text()))


def _autoencoder_config(source: str, subfolder: str | None = None, **_: Any) -> dict[str, Any]:
    config = _local_config(source, subfolder)
    if config is not None:
        return config
    name = source.rsplit("/", 1)[-1].lower()
    if name in FLUX_ARCHITECTURES:
        return dict(FLUX_VAE)
    if name == "taef1":
        return dict(TINY_VAE)
    raise ValueError(
        f"the autoencoder {source!r} is not known without a network: give FLUX.1's, taef1, or a local folder"
    )


def _autoencoder_loader(kind: Any) -> Callable[..., nn.Module]:
    def load(source: str, torch_dtype: torch.dtype, subfolder: str | None = None, **_: Any) -> nn.Module:
        with torch.device("meta"):
            return kind.from_config(_autoencoder_config(source, subfolder)).to(torch_dtype)

    return load


def _network_weights(source: Any, path: Any = None) -> dict[str, Tensor]:
    from fluxsr.losses import backbones
    from fluxsr.losses.weights import BACKBONES, DISTS_HEADS

    if source is DISTS_HEADS:
        channels = 3 + sum(backbones.CHANNELS["vgg"])  # the image itself is its first stage
        return {name: torch.zeros(1, channels, 1, 1) for name in ("alpha", "beta")}
    name = next(name for name, known in BACKBONES.items() if known is source)
    with torch.device("meta"):
        tower = {"vgg": backbones._vgg16, "alex": backbones._alexnet, "squeeze": backbones._squeezenet}[name]()
    return {f"features.{key}": tensor for key, tensor in tower.state_dict().items()}


def _heads(name: str) -> list[Tensor]:
    from fluxsr.losses.backbones import CHANNELS

    return [torch.zeros(channels) for channels in CHANNELS[name]]


def _clip(source: str, revision: str | None = None) -> tuple[Any, Any]:
    """Return CLIP's vision side without weights; the text side runs once, before training, and is left out."""
    try:
        from transformers import CLIPConfig, CLIPModel
    except ImportError as error:
        raise ValueError("CLIPQualityLoss needs the package transformers: pip install 'fluxsr[clip]'") from error
    # The defaults of CLIPConfig are ViT-B/32's.
    config = CLIPConfig.from_pretrained(source) if Path(source).is_dir() else CLIPConfig()
    with torch.device("meta"):
        whole = CLIPModel(config)
    width: Any = config.projection_dim
    model = SimpleNamespace(
        vision_model=whole.vision_model,
        visual_projection=whole.visual_projection,
        logit_scale=torch.zeros(()),
        text_projection=lambda features: features,
        text_model=lambda ids, mask: SimpleNamespace(pooler_output=torch.zeros(len(ids), width)),
    )
    return model, lambda captions, **_: SimpleNamespace(input_ids=captions, attention_mask=None)
