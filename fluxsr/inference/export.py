"""Exports a base and its adapter as one model: fused, folded and quantized, in the format of diffusers."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from fluxsr.inference.loading import Student, find_student, window_of
from fluxsr.inference.pipeline import FluxSRPipeline
from fluxsr.models import PromptEmbedding, fuse_lora, load_folded
from fluxsr.models.encoder_lora import copy_encoder_lora
from fluxsr.models.families import family_of
from fluxsr.models.known_names import license_of
from fluxsr.models.quantization import Quantization, quantization_config
from fluxsr.models.sources import StoredWeights
from fluxsr.models.student import StudentRecord
from fluxsr.models.weight_files import write_safetensors


class ExportedModel(NamedTuple):
    """The numbers of an export.

    Attributes:
        path: The folder or file.
        model: Name of the model that went in.
        dtype: Dtype of its weights.
        parameters: Parameters of the whole model that went in.
        exported: Numbers that the written transformer holds.
        folded: Whether its modulation layers are constants.
        start_time: Time of the LR latents.
        size: Bytes on disk.
        quantize: Format of the weights; ``None``: ``dtype``.
        base_model: Public name of the base.
    """

    path: Path
    model: str
    dtype: str
    parameters: int
    exported: int
    folded: bool
    start_time: float
    size: int
    quantize: Quantization | None
    base_model: str


def export_model(
    output: str,
    model: str | None = None,
    lora: str | None = None,
    prompt: str | None = None,
    guidance: float | None = None,
    autoencoder: str | None = None,
    start_time: float | None = None,
    window: int | None = None,
    fold: bool = True,
    layout: Literal["diffusers", "bfl"] = "diffusers",
    quantize: Quantization | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    base_model: str | None = None,
    trained: str = "",
    revision: str | None = None,
    overwrite: bool = False,
) -> ExportedModel:
    """Write a super-resolver as one model that diffusers loads: the adapter fused, the modulation layers folded.

    Folding removes 27 % of FLUX.1-dev (46 % without text) and 4 % of FLUX.2-klein-4B (21 %) without changing the output. It is
    done while loading, so the machine needs memory for the folded model only.

    Args:
        output: A folder, for FluxSRPipeline.from_pretrained and fluxsr upscale; or a file ending in .safetensors with the
            transformer alone.
        model: Model: nano-student (shipped, the default), a .safetensors file that training exported, or an adapter's base: a
            hub id or a local folder in diffusers' layout.
        lora: Adapter file that training exported.
        prompt: File of cached embeddings made by fluxsr prompt, the one used in training.
        guidance: Guidance strength, for models with a guidance embedding (FLUX.1-dev: 3.5).
        autoencoder: Autoencoder: pixel, or hub id or local folder of an autoencoder; by default the model's own.
        start_time: Time of the LR latents (lr_time in training); by default what the file says.
        window: Side in pixels of what the model sees at a time; by default what the file says,
            else 128 for models on pixels and 1024 for others.
        fold: Replace the modulation layers by their constant outputs: the model then runs at this time, with this prompt
            and guidance only.
        layout: Names of the weights in a .safetensors file: diffusers', or bfl for those that FLUX.1's authors gave them, which
            ComfyUI and the converters to GGUF read; bfl is never folded.
        quantize: int8 or fp8 (torchao) or nf4 (bitsandbytes) weights, for folders only; needs the extra quant.
        dtype: Dtype of the weights; auto keeps the checkpoint's.
        base_model: Public name of the base, for the model card and its license; by default found from the model.
        trained: Text on how it was trained, for the model card.
        revision: Revision of the hub repository.
        overwrite: Replace the output if it is there.

    Raises:
        ValueError: If the output is there already, or something can't be loaded or doesn't fit, with what to do.
    """
    target = Path(output)
    single = target.suffix == ".safetensors"
    if target.exists() and not overwrite:
        raise ValueError(f"{output} exists; give another output, or --overwrite")
    if quantize is not None and single:
        raise ValueError(f"quantized models are written as folders, but the output is {output!r}: give a folder")
    if layout == "bfl" and not single:
        raise ValueError(
            f"the layout bfl is one file, but the output is {output!r}: give a name ending in .safetensors"
        )
    fold = fold and layout == "diffusers"  # BFL's layout has the modulation layers themselves
    student = find_student(model, lora, revision=revision, start_time=start_time, window=window, guidance=guidance)
    source, time = student.source, student.start_time
    stored = StoredWeights(source)
    quantization = None if quantize is None else quantization_config(quantize, family_of(stored.config))
    kind = stored.dtype if dtype == "auto" else dtype
    if fold:
        embedding = None if prompt is None else PromptEmbedding.load(prompt)
        backbone = load_folded(
            source.name,
            t=time,
            prompt=embedding,
            guidance=student.record.guidance,
            lora=lora,
            dtype=kind,
            revision=revision,
        )
    else:
        backbone = fuse_lora(student.backbone(prompt, kind))
    # A transformer's folder has no autoencoder, and a file with the transformer alone needs none.
    alone = single and autoencoder is None and source.kind == "transformer"
    vae: Any = None if alone else student.autoencoder(backbone, autoencoder, kind)
    own = backbone.record
    record = replace(
        student.record,
        base=base_model or student.record.base,
        base_sizes=own.base_sizes,
        guidance=own.guidance,
        prompt=own.prompt,
        prompt_digest=own.prompt_digest,
        trained=trained or student.record.trained,
    )
    record = replace(record, license=license_of(record.base).name)
    if vae is not None:
        described: dict[str, Any] = {"autoencoder": vae.fingerprint(), "autoencoder_name": getattr(vae, "name", "")}
        record = replace(record, window=window_of(record, vae), **described)
    if not single:
        _write_folder(FluxSRPipeline.from_backbone(backbone, vae, record), target, quantization)
    elif layout == "bfl":
        state = {key: tensor.to(getattr(torch, kind)) for key, tensor in backbone.transformer.state_dict().items()}
        write_safetensors(
            target, backbone.family.original_names(state), metadata=_beside(record, student, target).header()
        )
    else:
        backbone.save(target, dtype=kind, record=_beside(record, student, target))
    return ExportedModel(
        path=target,
        model=source.name,
        dtype=kind,
        parameters=_parameters(stored.config),
        exported=sum(tensor.numel() for tensor in backbone.transformer.state_dict().values()),
        folded=fold,
        start_time=time,
        size=sum(file.stat().st_size for file in ([target] if single else target.rglob("*")) if file.is_file()),
        quantize=quantize,
        base_model=record.base,
    )


def _write_folder(pipeline: FluxSRPipeline, target: Path, quantization: Any) -> None:
    """Write a pipeline, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / target.name
        pipeline.save_pretrained(folder)
        if quantization is not None:
            # diffusers quantizes while loading.
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


def _beside(record: StudentRecord, student: Student, target: Path) -> StudentRecord:
    """Copy the adapter of the autoencoder's encoder, if there is one, beside a single file; return what its header says."""
    encoder = student.encoder_lora
    return record if encoder is None else replace(record, encoder_lora=copy_encoder_lora(encoder, target))


def _parameters(config: dict[str, Any]) -> int:
    """Return the number of parameters of an architecture."""
    with torch.device("meta"):
        transformer = family_of(config).class_of(config)(**config)
    return sum(parameter.numel() for parameter in transformer.parameters())
