import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

from fluxsr.models import LatentAutoencoder, PixelAutoencoder, load_autoencoder
from fluxsr.models.autoencoders import load_fitting_autoencoder
from fluxsr.models.sources import ModelSource
from fluxsr.models.student import StudentRecord
from fluxsr.protocols import Autoencoder


def tiny_kl(seed: int = 0) -> AutoencoderKL:
    """A random autoencoder of FLUX's kind: scale, shift, no quantization convolutions."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )


@pytest.fixture
def image(generator):
    return torch.rand(2, 3, 16, 24, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixel_round_trip_is_lossless(image, dtype):
    autoencoder = PixelAutoencoder(downsample=2)
    latents = autoencoder.encode(image.to(dtype))
    assert latents.shape == (2, 12, 8, 12)
    torch.testing.assert_close(autoencoder.decode(latents), image.to(dtype), rtol=0, atol=1e-7)


def test_pixel_latents_of_photos_have_unit_variance():
    from skimage import data

    photo = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None].float() / 255
    assert 0.7 < PixelAutoencoder().encode(photo).std() < 1.4


def test_kl_encodes_the_mode_with_shift_and_scale(image):
    vae = tiny_kl()
    autoencoder = LatentAutoencoder(vae)
    assert (autoencoder.downsample, autoencoder.latent_channels) == (2, 4)
    expected = (vae.encode(image * 2 - 1).latent_dist.mean - 0.1159) * 0.3611
    latents = autoencoder.encode(image)
    torch.testing.assert_close(latents, expected)
    assert torch.equal(autoencoder.encode(image), latents)  # a sample would differ
    decoded = vae.decode(latents / 0.3611 + 0.1159).sample / 2 + 0.5
    torch.testing.assert_close(autoencoder.decode(latents), decoded)


def test_the_gradient_passes_the_frozen_decoder_checkpointed_or_not(generator):
    gradients = []
    for checkpoint_decode in (False, True):
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        autoencoder = LatentAutoencoder(tiny_kl(), checkpoint_decode=checkpoint_decode).train()
        assert not autoencoder.training
        autoencoder.decode(latents).square().mean().backward()
        assert all(parameter.grad is None for parameter in autoencoder.parameters())
        gradients.append(latents.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
    assert gradients[0].norm() > 0


def test_local_folders_load(tmp_path, image):
    tiny_kl().save_pretrained(tmp_path / "pipeline" / "vae")
    loaded = load_autoencoder(str(tmp_path / "pipeline"))
    assert torch.equal(loaded.encode(image), LatentAutoencoder(tiny_kl()).encode(image))
    AutoencoderTiny(latent_channels=16, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                    num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(tmp_path / "tiny")  # fmt: skip
    tiny = load_autoencoder(str(tmp_path / "tiny"), dtype="bfloat16")
    assert tiny.dtype == torch.bfloat16
    assert tiny.encode(image).dtype == torch.float32
    assert tiny.decode(tiny.encode(image)).shape == image.shape
    assert isinstance(tiny, Autoencoder) and isinstance(PixelAutoencoder(), Autoencoder)


def test_real_flux_latents(assets):
    """taef1 is a tiny autoencoder of FLUX.1's real latent space; the manifest states its round trip as 21 to 31 dB."""
    from skimage import data

    autoencoder = load_autoencoder(str(assets / "taef1"))
    assert (autoencoder.scaling_factor, autoencoder.shift_factor) == (1.0, 0.0)
    photo = torch.from_numpy(data.coffee()[:256, :256].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        latents = autoencoder.encode(photo)
        mse = (autoencoder.decode(latents).clamp(0, 1) - photo).square().mean()
    assert latents.shape == (1, 16, 32, 32)
    assert -10 * mse.log10() > 21


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (torch.zeros(3, 8, 8), r"\(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8.*255"),
        (torch.zeros(1, 3, 9, 8), "9x8"),
    ],
)
@pytest.mark.parametrize("autoencoder", [PixelAutoencoder(downsample=2), LatentAutoencoder(tiny_kl())])
def test_what_is_no_image_is_refused(autoencoder, image, named):
    with pytest.raises(ValueError, match=named):
        autoencoder.encode(image)


def test_a_folder_of_something_else_is_refused(tmp_path):
    from tests.models.conftest import tiny_transformer

    tiny_transformer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'FluxTransformer2DModel'.*AutoencoderKLFlux2"):
        load_autoencoder(str(tmp_path))


def test_taesds_own_layout_is_the_same_autoencoder(tmp_path, image):
    """Written in taesd's key names, loaded, and run: bit for bit the model of diffusers that the tensors came from."""
    torch.manual_seed(0)
    vae = AutoencoderTiny(latent_channels=16)
    for part, shift in (("encoder", 0), ("decoder", 1)):
        layers = getattr(vae, part).layers.state_dict()
        split = {key: key.split(".", 1) for key in layers}
        renamed = {f"{int(index) + shift}.{rest}": layers[key] for key, (index, rest) in split.items()}
        save_file(renamed, tmp_path / f"small_{part}.safetensors")
    wide = torch.nn.functional.interpolate(image, size=(32, 40))
    ours, theirs = load_autoencoder(str(tmp_path)), LatentAutoencoder(vae)
    with torch.inference_mode():
        latents = ours.encode(wide)
        assert torch.equal(latents, theirs.encode(wide)) and torch.equal(ours.decode(latents), theirs.decode(latents))
    assert all(tensor.is_meta for tensor in load_autoencoder(str(tmp_path), device="meta").parameters())
    save_file({"lora": torch.zeros(1)}, tmp_path / "small_decoder.safetensors")
    with pytest.raises(ValueError, match=r"small_decoder.safetensors is no decoder in taesd's layout"):
        load_autoencoder(str(tmp_path))


def test_pickled_files_are_never_opened(tmp_path):
    for part in ("encoder", "decoder"):
        (tmp_path / f"taef1_{part}.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="pickled files, which are never opened"):
        load_autoencoder(str(tmp_path))


def test_a_hub_models_own_autoencoder_is_in_its_vae_folder(monkeypatch):
    asked = []

    def load(source, **options):
        asked.append((source, options["subfolder"], options["revision"]))
        return PixelAutoencoder()

    monkeypatch.setattr("fluxsr.models.autoencoders.load_autoencoder", load)
    source = ModelSource("black-forest-labs/FLUX.1-dev", "main")
    load_fitting_autoencoder(PixelAutoencoder(), source, record=StudentRecord())
    assert asked == [("black-forest-labs/FLUX.1-dev", "vae", "main")]
