"""Implements autoencoders between images in [0, 1] and normalized latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fluxsr.models.encoder_lora import add_encoder_lora, encoder_lora_off, fuse_encoder_lora, is_encoder_lora
from fluxsr.models.families import from_diffusers
from fluxsr.models.known_names import PIXEL
from fluxsr.models.sources import ModelSource, taesd_files
from fluxsr.models.student import StudentRecord
from fluxsr.models.weight_files import own_memory, read_safetensors, weights_digest

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny


class PixelAutoencoder(nn.Module):
    """A lossless "autoencoder": space-to-depth, so that small models need no VAE.

    Args:
        downsample: Pixels along one side of a latent position.
        shift: Subtracted from the image, in units of the image.
        scale: Multiplies the difference. 4 gives photos (standard deviation about 0.25) the unit variance that the
            noise at the other end of the path has.

    Raises:
        ValueError: If ``downsample`` or ``scale`` is not positive.
    """

    def __init__(self, downsample: int = 4, shift: float = 0.5, scale: float = 4.0) -> None:
        super().__init__()
        if downsample < 1 or not scale > 0:
            raise ValueError(f"downsample and scale must be positive, got {downsample} and {scale}")
        self.downsample = downsample
        self.latent_channels = 3 * downsample**2
        self.shift = shift
        self.scale = scale

    @classmethod
    def described(cls, fingerprint: Mapping[str, Any]) -> PixelAutoencoder:
        """Return the one that :meth:`fingerprint` describes."""
        return cls(*(fingerprint[name] for name in ("downsample", "shift", "scale")))

    def encode(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` in ``[0, 1]`` to ``(B, 3 d^2, H / d, W / d)``, exactly."""
        check_image(image, self.downsample)
        return nn.functional.pixel_unshuffle((image - self.shift) * self.scale, self.downsample)

    def decode(self, latents: Tensor) -> Tensor:
        """Undo :meth:`encode`."""
        return nn.functional.pixel_shuffle(latents, self.downsample) / self.scale + self.shift

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells it from others: teacher pairs and students must agree on it."""
        return {"kind": PIXEL, "downsample": self.downsample, "shift": self.shift, "scale": self.scale}


class LatentAutoencoder(nn.Module):
    """FLUX's latent space: diffusers' ``AutoencoderKL`` or ``AutoencoderTiny``, frozen, with its scale and shift.

    Latents are ``(mode - shift_factor) * scaling_factor``: the mode and not a sample, or every encoding of an image would
    differ. For ``AutoencoderTiny`` of FLUX (taef1) the factors are 1 and 0, since it is trained in the scaled space.

    Args:
        vae: The diffusers model. Its parameters are frozen.
        checkpoint_decode: Recompute the decoder's blocks in the backward pass instead of keeping their activations.
            The decoder in the loss is what fills the memory in training.
        encoder_lora_rank: Rank of an adapter of the encoder, trained with the student (OMGSR's way; FluxSR freezes it);
            ``None``: none. LR images are encoded with it, HR targets by :meth:`encode_target` without.

    Raises:
        ValueError: If the rank is below 1.
    """

    def __init__(self, vae: nn.Module, checkpoint_decode: bool = False, encoder_lora_rank: int | None = None) -> None:
        super().__init__()
        self.vae = cast("AutoencoderKL | AutoencoderTiny", vae.requires_grad_(False).eval())
        config: Any = self.vae.config
        self.scaling_factor = float(config.get("scaling_factor", 1.0))
        self.shift_factor = float(config.get("shift_factor") or 0.0)
        self.latent_channels = int(config.latent_channels)
        blocks = config.get("block_out_channels") or config.encoder_block_out_channels
        self.downsample = 2 ** (len(blocks) - 1)
        self.encoder_lora_rank = encoder_lora_rank
        self.name = ""  # hub id, where that alone names it; load_autoencoder says which
        if encoder_lora_rank is not None:
            add_encoder_lora(self.vae, encoder_lora_rank)
        if checkpoint_decode:
            self.vae.enable_gradient_checkpointing()

    def requires_grad_(self, requires_grad: bool = True) -> LatentAutoencoder:
        """Switch training of the encoder's adapter, which is all that can be trained."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(requires_grad and is_encoder_lora(name))
        return self

    def train(self, mode: bool = True) -> LatentAutoencoder:
        """Stay in evaluation mode: training the encoder's adapter is no reason to leave it."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.vae.parameters()).dtype

    def encode(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` in ``[0, 1]`` to float32 latents ``(B, C, H / 8, W / 8)``; ``ValueError`` for another shape."""
        check_image(image, self.downsample)
        encoded = self.vae.encode((image * 2 - 1).to(self.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return self.normalize(latents.float())

    def encode_target(self, image: Tensor) -> Tensor:
        """Encode as :meth:`encode`, without the encoder's adapter: HR targets stay where the teacher's latents are."""
        if self.encoder_lora_rank is None:
            return self.encode(image)
        with encoder_lora_off(self.vae):
            return self.encode(image)

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents to float32 images, nominally in ``[0, 1]``; the gradient passes through."""
        decoded = self.vae.decode(self.denormalize(latents).to(self.dtype)).sample
        return decoded.float() / 2 + 0.5

    def normalize(self, latents: Tensor) -> Tensor:
        """Bring what the encoder gives to the scale that the transformer works on."""
        return (latents - self.shift_factor) * self.scaling_factor

    def denormalize(self, latents: Tensor) -> Tensor:
        """Undo :meth:`normalize`."""
        return latents / self.scaling_factor + self.shift_factor

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells it from others: teacher pairs and students must agree on it. A digest stands for the weights."""
        return {
            "kind": type(self.vae).__name__,
            "downsample": self.downsample,
            "shift": self.shift_factor,
            "scale": self.scaling_factor,
            **self.weights(),
        }

    def weights(self) -> dict[str, str]:
        """Return a digest of the frozen weights, the same in bfloat16 and wider dtypes; nothing on ``meta`` and in float16."""
        names = [name for name, _ in self.vae.named_parameters() if not is_encoder_lora(name)]
        if next(self.vae.parameters()).is_meta or self.dtype == torch.float16:  # whose rounding leaves another bfloat16
            return {}
        return {"weights": weights_digest(self.vae, names, rounded=True)}


class Flux2Autoencoder(LatentAutoencoder):
    """FLUX.2's latent space: diffusers' ``AutoencoderKLFlux2``, frozen, normalized by its batch norm's running statistics.

    The statistics are of tokens: one mean and deviation for each channel and each of the 2x2 positions in a token. Applied to
    the latents before they are packed, they leave them ``(B, 32, H / 8, W / 8)``, as everywhere in this library.
    See :class:`LatentAutoencoder` for the arguments.
    """

    def __init__(self, vae: nn.Module, checkpoint_decode: bool = False, encoder_lora_rank: int | None = None) -> None:
        super().__init__(vae, checkpoint_decode, encoder_lora_rank)
        self.eps = float(self.vae.config["batch_norm_eps"])
        self.mean: Tensor
        self.std: Tensor
        mean, variance = (one.float().view(1, -1, 1, 1) for one in self._statistics())
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("std", (variance + self.eps).sqrt(), persistent=False)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        norm: Any = self.vae.get_submodule("bn")
        return norm.running_mean, norm.running_var

    def normalize(self, latents: Tensor) -> Tensor:
        """Subtract the mean and divide by the deviation of each channel and position in a token."""
        tokens = nn.functional.pixel_unshuffle(latents, 2)
        return nn.functional.pixel_shuffle((tokens - self.mean) / self.std, 2)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Undo :meth:`normalize`."""
        tokens = nn.functional.pixel_unshuffle(latents, 2)
        return nn.functional.pixel_shuffle(tokens * self.std + self.mean, 2)

    def fingerprint(self) -> dict[str, Any]:
        """As in :class:`LatentAutoencoder`; a tuned autoencoder may have other statistics, too."""
        found = {"kind": type(self.vae).__name__, "downsample": self.downsample, **self.weights()}
        if not self.mean.is_meta:
            digest = hashlib.sha256(f"{self.eps}".encode())
            for tensor in self._statistics():
                # As coarse as bfloat16, in which the weights may be stored or loaded: wider ones are the same weights.
                digest.update(tensor.cpu().bfloat16().float().numpy().tobytes())
            found["statistics"] = digest.hexdigest()[:16]
        return found


def wrap_autoencoder(
    vae: nn.Module, checkpoint_decode: bool = False, encoder_lora_rank: int | None = None
) -> LatentAutoencoder:
    """Return the latent autoencoder around a model of diffusers, by its kind; arguments as in :class:`LatentAutoencoder`."""
    kind = Flux2Autoencoder if type(vae).__name__ == "AutoencoderKLFlux2" else LatentAutoencoder
    return kind(vae, checkpoint_decode, encoder_lora_rank)


def check_image(image: Tensor, multiple: int) -> None:
    """Raise a ``ValueError`` unless an image batch can be encoded."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"images must have shape (B, 3, H, W), got {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {image.dtype}; divide 8-bit values by 255")
    if image.shape[-2] % multiple or image.shape[-1] % multiple:
        height, width = image.shape[-2:]
        raise ValueError(f"image sides must be multiples of {multiple}, got {height}x{width}; pad or crop")


def load_autoencoder(
    source: str = "pixel",
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    checkpoint_decode: bool = False,
    encoder_lora_rank: int | None = None,
    encoder_lora: str | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Load an autoencoder: a :class:`PixelAutoencoder`, a :class:`LatentAutoencoder` or a :class:`Flux2Autoencoder`.

    On the ``meta`` device nothing is downloaded and no weight is read. The configuration comes from the folder, the hub's cache
    on this disk, or a known model's name (FLUX.1's, FLUX.2's and taef1).

    Args:
        source: Name of the autoencoder: ``"pixel"`` for the lossless one, else a hub id or a local folder. It holds an
            ``AutoencoderKL``, ``AutoencoderKLFlux2`` or ``AutoencoderTiny`` (``black-forest-labs/FLUX.1-dev`` with
            ``subfolder="vae"``, ``madebyollin/taef1``). Or it is a folder with two files in taesd's own layout
            (``taef1_encoder.safetensors`` and ``taef1_decoder.safetensors``).
        subfolder: Folder inside the source; found automatically for a local pipeline folder with a ``vae`` inside.
        revision: Revision of the hub repository.
        dtype: Name of the weights' torch dtype.
        checkpoint_decode: See :class:`LatentAutoencoder`.
        encoder_lora_rank: Rank of a new adapter of the encoder, see :class:`LatentAutoencoder`.
        encoder_lora: File of a trained one, which ``ExportBackbone`` wrote: it is fused into the encoder.
        device: Device of the autoencoder; ``None``: torch's current default device.

    Raises:
        ValueError: If the source can't be loaded, with what to do.
    """
    place = torch.empty(0).device if device is None else torch.device(device)
    found = ModelSource(source, revision)
    if found.kind == "pixel":
        if encoder_lora_rank is not None or encoder_lora is not None:
            raise ValueError("pixel has no encoder to adapt: leave encoder_lora_rank and encoder_lora out")
        return PixelAutoencoder()
    if encoder_lora_rank is not None and encoder_lora is not None:
        raise ValueError("encoder_lora_rank makes a new adapter and encoder_lora brings a trained one: give one")
    kind = getattr(torch, dtype)
    vae = _load_taesd(found.local, kind, place) if found.kind == "taesd" else _load_vae(found, subfolder, kind, place)
    if encoder_lora is not None:
        fuse_encoder_lora(vae, encoder_lora)
    autoencoder = wrap_autoencoder(vae, checkpoint_decode, encoder_lora_rank)
    if found.kind == "hub" and subfolder is None:
        autoencoder.name = source
    return autoencoder.to(place)


def load_fitting_autoencoder(
    backbone: Any,
    source: ModelSource,
    name: str | None = None,
    *,
    record: StudentRecord | None = None,
    dtype: str = "float32",
    encoder_lora: str | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Load the autoencoder that was named, or else the one that a model was trained with, or comes with."""
    record = source.record if record is None else record
    autoencoder: Any
    if name is None and record.autoencoder.get("kind") == PIXEL and encoder_lora is None:
        autoencoder = PixelAutoencoder.described(record.autoencoder)
    else:
        where: dict[str, Any] = {}
        name = name or record.autoencoder_name or None
        if name is None:
            name, subfolder = source.own_autoencoder()
            where = {"subfolder": subfolder, "revision": source.revision}
        autoencoder = load_autoencoder(name, dtype=dtype, encoder_lora=encoder_lora, device=device, **where)
    ours, theirs = backbone.latent_channels, autoencoder.latent_channels
    if ours != theirs:
        raise ValueError(
            f"the model has {ours} latent channels and the autoencoder {theirs}: give the autoencoder that fits"
        )
    return autoencoder


def _load_vae(source: ModelSource, subfolder: str | None, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Load an autoencoder in diffusers' layout."""
    meta = device.type == "meta"
    config = source.autoencoder_config(subfolder, offline=meta)
    loader = from_diffusers(config["_class_name"], "0.36", f"the autoencoder of {source.name}")
    if meta:
        with device:
            # Not the class's own: diffusers warns at every cast.
            return nn.Module.to(loader.from_config(config), dtype)
    where: dict[str, Any] = {"subfolder": source.autoencoder_subfolder(subfolder), "revision": source.revision}
    with source.explain(), torch.device("cpu"):
        return own_memory(loader.from_pretrained(source.name, torch_dtype=dtype, **where))


def _load_taesd(folder: Path, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Load taesd's own files as diffusers' ``AutoencoderTiny``: two flat lists of layers, an encoder's and a decoder's."""
    from diffusers import AutoencoderTiny

    state: dict[str, Tensor] = {}
    for path, part, shift in zip(taesd_files(folder), ("encoder", "decoder"), (0, 1), strict=True):
        for key, tensor in read_safetensors(path, device)[0].items():
            index, _, rest = key.removeprefix(f"{part}.").partition(".")
            if not index.isdigit():
                raise ValueError(f"{path} is no {part} in taesd's layout: it holds {key!r}")
            # taesd's decoder begins with its clamp, which diffusers has outside of the list.
            state[f"{part}.layers.{int(index) - shift}.{rest}"] = tensor.to(dtype, copy=True)
    last = max((int(key.split(".")[2]) for key in state if key.startswith("encoder")), default=0)
    channels = state[f"encoder.layers.{last}.weight"].shape[0] if state else 0
    with torch.device("meta"):
        vae: Any = AutoencoderTiny(latent_channels=channels)
    try:
        vae.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder} holds no autoencoder in taesd's layout: its layers are others") from error
    return vae
