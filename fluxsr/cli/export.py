"""``fluxsr export``: a base and its adapter as one model, fused, folded and quantised, in the format of diffusers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fluxsr.cli.run import run
from fluxsr.inference.card import APACHE, base_model_of, licence_of
from fluxsr.inference.loading import FLUX_WINDOW, NANO_WINDOW
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import (
    FluxBackbone,
    PixelAutoencoder,
    PromptEmbedding,
    fuse_lora,
    load_autoencoder,
    load_flux,
    load_folded,
)
from fluxsr.models.quantization import Quantization, quantization_config
from fluxsr.models.sources import ModelSource, model_or_shipped
from fluxsr.models.stored_weights import StoredWeights
from fluxsr.models.weight_files import read_safetensors

EXAMPLES = """
fluxsr export --output nano-model                                    # the shipped student, folded
fluxsr export --output restorer --model black-forest-labs/FLUX.1-dev --guidance 3.5 \\
  --prompt prompt.safetensors --lora outputs/fluxsr_flux1dev/backbone.safetensors --dtype bfloat16
fluxsr export --output transformer.safetensors --model nano --lora outputs/fluxsr_nano/backbone.safetensors
"""


def export(
    output: str,
    model: str | None = None,
    lora: str | None = None,
    prompt: str | None = None,
    guidance: float | None = None,
    vae: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    fold: bool = True,
    quantize: Quantization | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    base_model: str | None = None,
    trained: str = "",
    revision: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a super-resolver as one model that diffusers loads: the adapter fused, the modulation layers folded.

    Folding removes 27 % of FLUX.1-dev without changing its output; it is done while loading, so the machine needs memory for
    the folded model only.

    Args:
        output: a folder, for FluxSRPipeline.from_pretrained and fluxsr upscale; or a file ending in .safetensors with the
            transformer alone.
        model: nano-student (shipped, the default), a .safetensors file that training exported, or the base of an adapter: a hub
            id or a local folder in diffusers' layout.
        lora: adapter file that training exported.
        prompt: file of cached embeddings made by fluxsr prompt, the one that was trained with.
        guidance: for models with a guidance embedding (FLUX.1-dev: 3.5).
        vae: pixel, or hub id or local folder of an autoencoder; by default the model's own.
        start_time: time of the LR latents (lr_time in training); by default what the file's header says, else 0.25.
        window: side in pixels of what the model sees at a time; by default 128 for models on pixels and 1024 for others.
        fold: replace the modulation layers by their constant outputs: the model then runs at this time, with this prompt
            and guidance only.
        quantize: int8 or fp8 (torchao) or nf4 (bitsandbytes) weights, of folders only; needs the extra quant.
        dtype: of the weights; auto keeps the checkpoint's.
        base_model: public name of the base, for the model card and its licence; by default found from the model.
        trained: how it was trained, for the model card.
        revision: of the hub repository.
        overwrite: replace the output if it is there.
    """
    target = Path(output)
    single = target.suffix == ".safetensors"
    if target.exists() and not overwrite:
        raise ValueError(f"{output} exists; give another output, or --overwrite true")
    if quantize is not None and single:
        raise ValueError(f"quantised models are written as folders, but the output is {output!r}: give a folder")
    model = model_or_shipped(model, lora)
    quantization = None if quantize is None else quantization_config(quantize)
    checkpoint = StoredWeights(ModelSource(model, revision))
    kind = checkpoint.dtype if dtype == "auto" else dtype
    if start_time is None:
        # The adapter's own time, where there is one: it was trained for that and not for the base's.
        told = read_safetensors(lora)[1] if lora is not None and Path(lora).is_file() else {}
        start_time = float((checkpoint.source.metadata | told).get("start_time", 0.25))
    base_model = base_model or base_model_of(model, checkpoint.config)
    common: dict[str, Any] = {"guidance": guidance, "dtype": kind, "revision": revision}
    if fold:
        embedding = None if prompt is None else PromptEmbedding.load(prompt)
        backbone = load_folded(model, t=start_time, prompt=embedding, lora=lora, **common)
    else:
        backbone = fuse_lora(load_flux(model, trainable="none", prompt=prompt, lora_weights=lora, **common))
    print(f"{model}: {_amount(_parameters(checkpoint.config), kind)}")
    print(f"{'folded at t = ' + format(start_time, 'g') if fold else 'not folded'}: {_amount(_count(backbone), kind)}")
    facts = {"start_time": start_time, "base_model": base_model, "trained": trained}
    if single:
        metadata = {**{key: str(value) for key, value in facts.items()}, "license": licence_of(base_model).name}
        backbone.save(target, dtype=kind, metadata=metadata)
    else:
        autoencoder = _autoencoder(vae, model, base_model, kind, revision)
        if window is None:
            window = NANO_WINDOW if isinstance(autoencoder, PixelAutoencoder) else FLUX_WINDOW
        pipeline = FluxSRPipeline.from_backbone(backbone, autoencoder, window=window, **facts)
        _write_folder(pipeline, target, quantization)
    size = sum(file.stat().st_size for file in ([target] if single else target.rglob("*")) if file.is_file())
    quantised = "" if quantize is None else f", {quantize}"
    print(f"{output}: {_gigabytes(size)} on disk{quantised}, {licence_of(base_model).name}")
    if licence_of(base_model) != APACHE:
        print(f"made from {base_model}: not for commercial use; its licence goes with every copy")


def _autoencoder(vae: str | None, model: str, base_model: str, dtype: str, revision: str | None) -> nn.Module:
    """Return the autoencoder that was named, or else the model's own."""
    if vae is not None:
        return load_autoencoder(vae, dtype=dtype)
    if base_model == "nano":
        return PixelAutoencoder()
    if Path(model).exists() and not (Path(model) / "vae").is_dir():
        raise ValueError(
            f"{model} has no vae: give --vae, for example black-forest-labs/FLUX.1-dev or madebyollin/taef1"
        )
    return load_autoencoder(model, subfolder="vae", dtype=dtype, revision=revision)


def _write_folder(pipeline: FluxSRPipeline, target: Path, quantization: Any) -> None:
    """Write a pipeline, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / target.name
        pipeline.save_pretrained(folder)
        if quantization is not None:
            # diffusers quantises while loading.
            transformer: Any = type(pipeline.transformer)
            where = folder / "transformer"
            pipeline.transformer = transformer.from_pretrained(
                where, quantization_config=quantization, torch_dtype=pipeline.dtype
            )
            shutil.rmtree(where)
            pipeline.save_pretrained(folder)
        if target.exists():
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        folder.rename(target)


def _parameters(config: dict[str, Any]) -> int:
    """Return the number of parameters of a whole FLUX."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        transformer: Any = FluxTransformer2DModel(**config)
    return sum(parameter.numel() for parameter in transformer.parameters())


def _count(backbone: FluxBackbone) -> int:
    """Return how many numbers a backbone holds."""
    return sum(tensor.numel() for tensor in backbone.transformer.state_dict().values())


def _amount(numbers: int, dtype: str) -> str:
    return f"{numbers:,} parameters, {_gigabytes(numbers * getattr(torch, dtype).itemsize)} in {dtype}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def main(arguments: list[str]) -> None:
    """Run the command."""
    run(export, "export", arguments, EXAMPLES)
