"""Makes teacher pairs with the multi-step teacher, resumable after any interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.data import PairStore
from fluxsr.data.pair_store import draw_noise
from fluxsr.flows import euler
from fluxsr.images import list_images, read_image
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.models.autoencoders import load_fitting_autoencoder
from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.families import is_folded
from fluxsr.models.prompts import tensors_digest
from fluxsr.models.sources import ModelSource
from fluxsr.models.weights_digest import weights_digest
from fluxsr.processes import ALONE, Processes


class MadePairs(NamedTuple):
    """A store of teacher pairs, and how it was made.

    Attributes:
        folder: The store.
        num: Number of pairs that it holds.
        size: Side of the images in pixels.
        done_before: Number of them that an earlier run had made.
        steps: Euler steps of the teacher.
        round_trip: Rms error of the latents of each photo that was inverted now, ``(n,)``; empty where none was.
    """

    folder: Path
    num: int
    size: int
    done_before: int
    steps: int
    round_trip: Tensor


def make_pairs(
    output: str,
    model: str = "nano",
    num: int = 64,
    seed: int = 0,
    steps: int = 20,
    size: int | None = None,
    images: str | None = None,
    noise: Literal["inversion", "independent"] = "inversion",
    prompt: str | None = None,
    guidance: float | None = None,
    cfg: float = 1.0,
    shift: float | None = None,
    autoencoder: str | None = None,
    batch_size: int = 8,
    shard_size: int = 64,
    dtype: DType = "float32",
    device: str = "auto",
    revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> MadePairs:
    """Make (noise, latents, image) triples with the multi-step teacher, for FluxSR's training.

    The same command resumes after an interruption, and the result is the same tensor for tensor. A folder made with other
    settings is refused.

    Args:
        output: Folder of the store.
        model: The teacher: nano (shipped), a hub id such as black-forest-labs/FLUX.1-dev, a local folder, or a
            .safetensors file made by this library.
        num: Number of pairs; with images, at most one per image.
        seed: Seed of the noise.
        steps: Euler steps of the teacher. The paper publishes none; FLUX.1-dev is usually sampled with 28 to 50.
        size: Side of the images in pixels; 128 for nano, 1024 for FLUX (the paper's).
        images: Folder of photos to pair instead of the teacher's own images; the middle square of each is used.
        noise: Noise of photos: inversion runs the teacher's ODE backwards to the noise and prints the round trip's error;
            independent draws noise that has nothing to do with the photo.
        prompt: File of a cached prompt, made by fluxsr prompt.
        guidance: Guidance strength, for models with a guidance embedding (FLUX.1-dev: 3.5).
        cfg: Scale of classifier-free guidance, two passes a step, for undistilled models (FLUX.2-klein-base: 4.0); the prompt
            file holds the negative prompt.
        shift: Time shift of the sampling grid; by default 1 for nano and the model's own for the size.
        autoencoder: Autoencoder: pixel, a hub id or a folder; by default pixel for nano, else the model's own.
        batch_size: Images at a time.
        shard_size: Pairs per file.
        dtype: Dtype of the teacher's weights, for example bfloat16.
        device: Device to run on: auto, cpu, cuda or mps.
        revision: Revision of the hub repository.
        progress: Called with the number of pairs done and of all pairs; of several processes' work with its own part.
        processes: The processes that share the shards; each of them makes the same call. The store is that of one.

    Raises:
        ValueError: If a number is out of range, something can't be loaded or doesn't fit, or the folder was made with other
            settings.
    """
    if num < 1 or steps < 1 or batch_size < 1:
        raise ValueError(f"num, steps and batch_size must be at least 1, got {num}, {steps} and {batch_size}")
    if noise not in ("inversion", "independent"):
        raise ValueError(f"noise must be inversion or independent, got {noise!r}")
    check_dtype(dtype)
    place = choose_device(device)
    source = ModelSource(model, revision)
    config = source.transformer_config()
    if is_folded(config):
        raise ValueError(
            f"{model} was folded at t = {config['t']}, and a teacher runs at many times: give the whole model"
        )
    backbone = load_flux(
        model, trainable="none", prompt=prompt, guidance=guidance, dtype=dtype, revision=revision, device=place
    )
    vae: Any = load_fitting_autoencoder(backbone, source, autoencoder, dtype=dtype, device=place)
    pixel = isinstance(vae, PixelAutoencoder)
    size = (128 if pixel else 1024) if size is None else size
    side = size // vae.downsample
    if size < 1 or size % (2 * vae.downsample):
        raise ValueError(f"size must be a multiple of {2 * vae.downsample} for this model, got {size}")
    if shift is None:
        shift = 1.0 if pixel else backbone.family.shift((side // 2) ** 2, steps)
    velocity = backbone.guided(cfg)
    photos = list_images(images) if images is not None else []
    if photos:
        num = min(num, len(photos))
    fingerprint = {
        "model": model,
        "weights": weights_digest(backbone),
        "revision": revision,
        "autoencoder": vae.fingerprint(),
        "prompt": backbone.prompt_text,
        "prompt_digest": backbone.prompt.digest,
        **({} if cfg == 1 else {"cfg": cfg, "negative_prompt_digest": tensors_digest(backbone.negative_prompt_embeds)}),
        "guidance": guidance,
        "steps": steps,
        "shift": shift,
        "size": size,
        "source": photos_digest(photos, noise) if photos else "teacher",
        "batch_size": batch_size,  # a matrix product's rounding depends on it
        "dtype": dtype,
    }
    if any(other != fingerprint for other in processes.gather(fingerprint)):
        raise ValueError(f"the processes found different files of {model} or of the photos: give all of them the same")

    if processes.first:
        PairStore.create_or_resume(
            output,
            fingerprint,
            num,
            shard_size,
            latent_shape=(vae.latent_channels, side, side),
            seed=seed,
            noise="stored" if photos else "seed",
        )
    processes.gather(None)
    store = PairStore.open(output)

    def make(batch: range) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return latents, images, and the noise of photos: by inversion or independent of the photo."""
        if not photos:
            start_noise = torch.stack([store.noise(i) for i in batch]).to(place)
            latents = euler(velocity, start_noise, 1.0, 0.0, steps, shift=shift)
            return latents, vae.decode(latents), None
        pictures = torch.stack([middle_square(read_image(photos[i]), size) for i in batch]).to(place)
        latents = vae.encode(pictures)
        if noise == "inversion":
            return latents, pictures, euler(velocity, latents, 0.0, 1.0, steps, shift=shift)
        return latents, pictures, torch.stack([draw_noise(seed, i, tuple(latents.shape[1:])) for i in batch])

    def batches(indices: range) -> list[range]:
        # Borders depend on the index alone, so a resumed store has the same bits.
        starts = range(indices.start, indices.stop, batch_size)
        return [range(start, min(start + batch_size, indices.stop)) for start in starts]

    missing = store.missing_shards() if processes.first else []
    # All wait for the first process, and take its word.
    missing = processes.gather(missing)[0]
    mine = processes.share(missing)
    done = num - sum(map(len, missing))
    made = done if processes.world == 1 else 0
    total = made + sum(map(len, mine))
    report = progress or (lambda done, total: None)
    errors: dict[int, Tensor] = {}
    with torch.inference_mode():
        for indices in mine:
            parts, apart = [], []
            for batch in batches(indices):
                parts.append(make(batch))
                latents, _, start_noise = parts[-1]
                if start_noise is not None and noise == "inversion":
                    back = euler(velocity, start_noise.to(latents), 1.0, 0.0, steps, shift=shift)
                    apart.append((back - latents).square().flatten(1).mean(dim=1).sqrt().cpu())
                made += len(batch)
                report(made, total)
            columns = [
                torch.cat([part.float().cpu() for part in column])
                for column in zip(*parts, strict=True)
                if column[0] is not None  # noise that follows from the seed is not stored
            ]
            store.write_shard(indices.start // store.shard_size, *columns, aside=not processes.first)
            if apart:
                errors[indices.start] = torch.cat(apart)
    for others in processes.gather(errors):
        errors |= others
    if processes.first:
        store.take_over()
    round_trip = [errors[start] for start in sorted(errors)]
    return MadePairs(Path(output), num, size, done, steps, torch.cat(round_trip) if round_trip else torch.zeros(0))


def middle_square(image: Tensor, size: int) -> Tensor:
    """Cut the middle square of ``(3, H, W)`` and resize it to ``size`` (antialiased bicubic)."""
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    square = image[None, :, top : top + side, left : left + side]
    return interpolate(square, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)[0]


def photos_digest(photos: list[Path], noise: str) -> str:
    """Return what identifies the photos: names and sizes in bytes, in order."""
    listing = "\n".join(f"{path.name}:{path.stat().st_size}" for path in photos)
    return f"{noise}:{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
