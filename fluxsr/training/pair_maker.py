"""Makes teacher pairs with the multi-step teacher, resumable after any interruption."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fluxsr.data import PairStore
from fluxsr.data.pair_store import MANIFEST, PairKey, draw_noise
from fluxsr.flows import euler
from fluxsr.images import list_images, read_image, read_pixels, read_size
from fluxsr.images.listing import named
from fluxsr.models import PixelAutoencoder, load_flux
from fluxsr.models.autoencoders import load_fitting_autoencoder
from fluxsr.models.devices import DType, check_dtype, choose_device
from fluxsr.models.families import is_folded
from fluxsr.models.prompts import tensors_digest
from fluxsr.models.sources import ModelSource
from fluxsr.models.weight_files import weights_digest
from fluxsr.processes import ALONE, Processes

logger = logging.getLogger(__name__)


class MadePairs(NamedTuple):
    """A store of teacher pairs, and how it was made.

    Attributes:
        folder: The store.
        num: Number of its pairs that are in use.
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


class _Batch(NamedTuple):
    tensors: tuple[Tensor, ...]  # latents, images, and the noise where it doesn't follow from the seed
    round_trip: Tensor | None = None


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

    The same command resumes after an interruption, and the result is the same tensor for tensor. With a larger ``num``, or
    with photos added, removed, changed or renamed, it makes only what is missing. Pairs that are not asked for any more stay
    in the folder. A folder made with another model, autoencoder or other settings is refused.

    Args:
        output: Folder of the store.
        model: The teacher: nano (shipped), a hub id such as black-forest-labs/FLUX.1-dev, a local folder, or a
            .safetensors file made by this library.
        num: Number of pairs; with images, at most one per image. Of more that are there, the first are used.
        seed: Seed of the noise.
        steps: Euler steps of the teacher. The paper publishes none; FLUX.1-dev is usually sampled with 28 to 50.
        size: Side of the images in pixels; 128 for nano, 1024 for FLUX (the paper's).
        images: Folder of photos to pair instead of the teacher's own images; the middle square of each is used. What can't be
            read is left out, with a warning.
        noise: Noise of photos: inversion runs the teacher's ODE backwards to the noise and prints the round trip's error;
            independent draws noise that has nothing to do with the photo.
        prompt: File of a cached prompt, made by fluxsr prompt.
        guidance: Guidance strength, for models with a guidance embedding (FLUX.1-dev: 3.5).
        cfg: Scale of classifier-free guidance, two passes a step, for undistilled models (FLUX.2-klein-base: 4.0); the prompt
            file holds the negative prompt.
        shift: Time shift of the sampling grid; by default 1 for nano, else what the model's scheduler/scheduler_config.json
            says, and the family's own for the size where it says so or there is no such file.
        autoencoder: Autoencoder: pixel, a hub id or a folder; by default pixel for nano, else the model's own.
        batch_size: Images at a time; fewer are filled up, so that no pair depends on the number of others.
        shard_size: Pairs per file, of a new folder.
        dtype: Dtype of the teacher's weights, for example bfloat16.
        device: Device to run on: auto, cpu, cuda or mps.
        revision: Revision of the hub repository.
        progress: Called with the number of pairs done and of all pairs; of several processes' work with its own part.
        processes: The processes that share the shards; each of them makes the same call. The store is that of one.

    Raises:
        ValueError: If a number is out of range, something can't be loaded or doesn't fit, photos are smaller than ``size``, or
            the folder was made with other settings.
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
        raise ValueError(f"{model} was folded at t = {config['t']}, and a teacher runs at many: give the whole model")
    if source.record.start_time is not None and not source.record.from_noise:
        raise ValueError(f"{model} is a student, which makes no photos: give the flow teacher that it was trained from")
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
        shift = 1.0 if pixel else backbone.family.shift((side // 2) ** 2, steps, source.scheduler)
    velocity = backbone.guided(cfg)
    fingerprint = {
        "model": model,
        "weights": weights_digest(backbone),
        "revision": revision,
        "autoencoder": vae.fingerprint(),
        "prompt": backbone.prompt_text,
        "prompt_digest": backbone.prompt.digest,
        **({} if cfg == 1 else {"cfg": cfg, "negative_prompt_digest": tensors_digest(backbone.negative_prompt_embeds)}),
        "guidance": backbone.guidance,
        "steps": steps,
        "shift": shift,
        "size": size,
        "source": "teacher" if images is None else noise,
        "batch_size": batch_size,  # a matrix product's rounding depends on it
        "dtype": dtype,
    }
    if any(other != fingerprint for other in processes.gather(fingerprint)):
        raise ValueError(f"the processes found different files of {model}: give all of them the same")
    folder = Path(output).expanduser()
    photos = None
    if images is not None:
        known = set(PairStore.open(folder).places()) if (folder / MANIFEST).is_file() else set()
        photos = find_photos(Path(images).expanduser(), num, size, known, processes)
    own = None
    if processes.first:
        own = PairStore.create_or_resume(
            folder,
            fingerprint,
            num,
            shard_size,
            latent_shape=(vae.latent_channels, side, side),
            seed=seed,
            photos=None if photos is None else list(photos),
        )
    # All wait for the first process, and take what it found.
    store = processes.gather(own)[0]
    assert store is not None
    keys, missing = store.missing_keys(), store.missing_shards()

    def make(indices: list[int]) -> _Batch:
        """Make a batch: of the teacher's own, or of photos with their noise, by inversion or independent of them."""
        # A pair has its place in a whole batch, or its last bits would depend on which others are made now.
        rows = [index % store.shard_size % batch_size for index in indices]

        def whole(given: list[Tensor]) -> Tensor:
            batch = given[0].repeat(batch_size, 1, 1, 1)
            batch[rows] = torch.stack(given)
            return batch.to(place)

        if photos is None:
            start_noise = whole([store.noise(index) for index in indices])
            latents = euler(velocity, start_noise, 1.0, 0.0, steps, shift=shift)
            return _Batch((latents[rows], vae.decode(latents)[rows]))
        pictures = whole([middle_square(read_image(photos[str(keys[index])]), size) for index in indices])
        latents = vae.encode(pictures)
        if noise == "independent":
            drawn = torch.stack([draw_noise(seed, index, store.latent_shape) for index in indices])
            return _Batch((latents[rows], pictures[rows], drawn))
        start_noise = euler(velocity, latents, 0.0, 1.0, steps, shift=shift)
        back = euler(velocity, start_noise.to(latents), 1.0, 0.0, steps, shift=shift)
        error = (back - latents).square().flatten(1).mean(dim=1).sqrt()
        return _Batch((latents[rows], pictures[rows], start_noise[rows]), error[rows].cpu())

    mine = processes.share(missing)
    done = store.num_pairs - len(keys)
    made = done if processes.world == 1 else 0
    total = made + sum(map(len, mine))
    report = progress or (lambda done, total: None)
    errors: dict[int, Tensor] = {}
    with torch.inference_mode():
        for indices in mine:
            batches = []
            for _, group in groupby(indices, lambda index: index % store.shard_size // batch_size):
                batches.append(make(list(group)))
                made += len(batches[-1].tensors[0])
                report(made, total)
            columns = zip(*(batch.tensors for batch in batches), strict=True)
            tensors = [torch.cat([part.float().cpu() for part in column]) for column in columns]
            store.write_shard(indices.start // store.shard_size, *tensors, aside=not processes.first)
            apart = [batch.round_trip for batch in batches if batch.round_trip is not None]
            if apart:
                errors[indices.start] = torch.cat(apart)
    for others in processes.gather(errors):
        errors |= others
    if processes.first:
        store.take_over()
    round_trip = torch.cat([torch.zeros(0), *(errors[start] for start in sorted(errors))])
    return MadePairs(folder, store.num_pairs, size, done, steps, round_trip)


def find_photos(
    folder: Path, num: int, size: int, known: Collection[PairKey], processes: Processes = ALONE
) -> dict[str, Path]:
    """Return the first photos that can be paired, in the order of their names, by the digests of their bytes.

    Photos that can't be read, and copies, are left out with a warning that names them. Those whose digests are ``known`` have
    been paired before, and so can be read. Where none can be used, or one is smaller than ``size``, it is a ``ValueError``.
    """
    paths = list_images(folder)
    listing = [(str(path.relative_to(folder)), path.stat().st_size) for path in paths]
    if any(other != listing for other in processes.gather(listing)):
        raise ValueError(f"the processes found different photos in {folder}: give all of them the same")
    found: dict[str, Path] = {}
    left_out: list[str] = []
    looked_at = 0
    while looked_at < len(paths) and len(found) < num:
        numbers = range(looked_at, min(looked_at + num - len(found), len(paths)))
        mine = {number: _look_at(paths[number], size, known) for number in processes.share(numbers)}
        looks = {number: look for part in processes.gather(mine) for number, look in part.items()}
        small = [f"{paths[number]} ({looks[number].small})" for number in numbers if looks[number].small]
        if small:
            raise ValueError(
                f"{len(small)} of {len(numbers)} photos are smaller than {size}x{size}, and enlarged ones would teach blur "
                f"(remove them, or make smaller pairs): {named(small)}"
            )
        for number in numbers:
            fault, digest = looks[number].fault, looks[number].digest
            if not fault and digest in found:
                fault = f"{paths[number]} is a copy of {found[digest]}"
            if fault:
                left_out.append(fault)
            else:
                found[digest] = paths[number]
        looked_at = numbers.stop
    if not found:
        raise ValueError(f"none of the {len(paths)} photos in {folder} can be used: {named(left_out)}")
    if left_out and processes.first:
        logger.warning("left out %d of %d photos: %s", len(left_out), looked_at, named(left_out))
    return found


class _Look(NamedTuple):
    """What is found in a photo: the digest of its bytes, or why it can't be used, or its size where that is too small."""

    digest: str = ""
    fault: str = ""
    small: str = ""


def _look_at(path: Path, size: int, known: Collection[PairKey]) -> _Look:
    try:
        height, width = read_size(path)
        if min(height, width) < size:
            return _Look(small=f"{width}x{height}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in known:
            read_pixels(path)  # most damage is behind the header
    except ValueError as error:
        return _Look(fault=str(error))
    return _Look(digest)


def middle_square(image: Tensor, size: int) -> Tensor:
    """Cut the middle square of ``(3, H, W)`` and reduce it to ``size`` (antialiased bicubic)."""
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    square = image[None, :, top : top + side, left : left + side]
    return interpolate(square, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)[0]
