import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from fluxsr.flows import euler
from fluxsr.inference import Upscaler
from fluxsr.models import LatentAutoencoder, PixelAutoencoder
from fluxsr.models.tiling import TiledVelocity, spans
from tests.models.test_autoencoders import tiny_kl


def psnr(a, b):
    return -10 * math.log10(float((a.double() - b.double()).square().mean()))


@pytest.fixture(scope="module")
def photo():
    """A face of 96x96, ``(3, 96, 96)`` in [0, 1]."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()[40:136, 170:266]).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("scale", [1, 1.5, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 13), (133, 217)])
def test_every_size_at_every_scale_is_the_bicubic_one_where_nothing_moves(make, size, scale, generator):
    image = torch.rand(3, *size, generator=generator)
    result = make(window=64)(image, scale)
    assert result.shape == (3, max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    expected = interpolate(image[None], size=result.shape[1:], mode="bicubic").clamp(0, 1)[0]
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=0)  # torch's coordinates are float32


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2])
def test_twelve_megapixels(make, scale):
    image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    result = make(window=256)(image, scale)
    assert result.shape == (3000 * scale, 4000 * scale, 3) and result.dtype == np.uint8
    assert scale > 1 or np.array_equal(result, image)


@pytest.mark.parametrize(("size", "color_fix"), [((1, 1), "wavelet"), ((1, 90), "adain"), ((40, 70), "none")])
def test_the_shipped_student_takes_every_size(size, color_fix):
    upscaler = Upscaler.from_pretrained(color_fix=color_fix, device="cpu")
    result = upscaler(torch.rand(3, *size), 1.5)
    assert result.shape == (3, round(size[0] * 1.5), round(size[1] * 1.5))
    assert result.isfinite().all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("size", [(50, 70), (70, 50)])
def test_strips_are_the_steps_on_the_whole(make, size, steps, generator):
    # Something whose every value depends on the whole window, and on which way round the image is.
    velocity = lambda x, t: x.cumsum(dim=-1) * 0.01 + x.mean(dim=(-1, -2), keepdim=True) * t.reshape(-1, 1, 1, 1)
    image = torch.rand(3, *size, generator=generator) * 0.5 + 0.25
    autoencoder = PixelAutoencoder(downsample=2)
    padded = torch.nn.functional.pad(image[None], (0, -size[1] % 4, 0, -size[0] % 4), mode="replicate")
    latents = euler(TiledVelocity(velocity, 8, 2), autoencoder.encode(padded), 0.25, 0.0, steps)
    expected = autoencoder.decode(latents)[0, :, : size[0], : size[1]].clamp(0, 1)
    torch.testing.assert_close(make(velocity)(image, 1, steps=steps), expected, atol=1e-5, rtol=0)


def test_the_shipped_student_tiled_and_untiled(nano, photo):
    tiled, untiled = (
        Upscaler(nano.velocity, nano.autoencoder, nano.start_time, window=nano.window, tile=tile)(photo)
        for tile in (128, None)
    )
    assert tiled.shape == (3, 384, 384)
    assert psnr(tiled, untiled) > 80  # the same windows, in other batches
    # And it does something that the windows could differ in.
    assert psnr(tiled, interpolate(photo[None], size=(384, 384), mode="bicubic")[0]) < 40


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 1.0])
def test_no_seam_on_a_constant(nano, value):
    assert_no_seam(nano, torch.full((3, 400, 400), value))


@pytest.mark.parametrize("direction", ["horizontal", "diagonal"])
def test_no_seam_on_a_gradient(nano, direction):
    ramp = torch.linspace(0.1, 0.9, 400).expand(3, 400, 400)
    assert_no_seam(nano, ramp if direction == "horizontal" else (ramp + ramp.mT) / 2)


def assert_no_seam(nano, image):
    """Check that tile borders step by at most 1/255 on average along them, or no more than the model's own pattern does.

    The shipped student draws a faint grid of 8 pixels everywhere: on a gradient, the means of neighboring columns differ
    from it. A seam would stand out.
    """
    change = nano(image.contiguous(), 1) - image
    tiles = spans(100, 32, 8)  # windows of 128 pixels in latent positions of 4
    assert nano.window == 4 * 32 and len(tiles) == 4
    borders = {4 * s.start for s in tiles[1:]} | {4 * (s.start + s.size) for s in tiles[:-1]}
    for axis in (1, 2):
        steps = change.mean(dim=3 - axis).diff(dim=1).abs()
        at, elsewhere = sorted(border - 1 for border in borders), [i for i in range(399) if i + 1 not in borders]
        assert steps[:, at].max() <= max(1 / 255, steps[:, elsewhere].max() + 1e-6)  # on a constant they are equal


def test_windows_that_disagree_blend_without_a_step(make):
    # The worst model: every window answers with a color of its own, black or white by turns.
    answers = iter(range(10**6))

    def velocity(xt, t):
        return torch.stack([torch.full_like(x, (-2.0, 2.0)[next(answers) % 2]) for x in xt]) / 0.25 * 0.5

    result = make(velocity, window=64)(torch.full((3, 40, 400), 0.5), 1)
    assert result.max() - result.min() > 0.4
    # The steepest part of sin^2 over the overlap, which is 8 latent positions of 2 pixels.
    assert result.diff(dim=-1).abs().max() < 0.5 * math.pi / 2 / 8


@pytest.mark.parametrize("color_fix", ["wavelet", "adain"])
def test_the_color_fix_undoes_a_shift_of_color(make, photo, color_fix):
    shifted = make(lambda x, t: torch.full_like(x, 1.0), window=64)(photo, 1)
    fixed = make(lambda x, t: torch.full_like(x, 1.0), window=64, color_fix=color_fix)(photo, 1)
    assert psnr(shifted, photo) < 26
    assert psnr(fixed, photo) > 34


def test_adain_keeps_the_precision_of_integers(make, photo):
    pixels = (photo.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    result = make(color_fix="adain")(pixels, 1)
    assert np.abs(result.astype(int) - pixels).max() <= 1


def test_latent_autoencoders_and_their_tiles(photo):
    torch.manual_seed(0)
    autoencoder = LatentAutoencoder(tiny_kl())
    still = lambda x, t: torch.zeros_like(x)
    upscaler = Upscaler(still, autoencoder, 0.25, tile=64, color_fix="none")
    tall, wide = upscaler(photo[:, :, :70], 1), upscaler(photo[:, :70], 1)
    assert tall.shape == (3, 96, 70) and wide.shape == (3, 70, 96)
    whole = Upscaler(still, autoencoder, 0.25, tile=None, color_fix="none")(photo[:, :64, :64], 1)
    torch.testing.assert_close(whole, autoencoder.decode(autoencoder.encode(photo[None, :, :64, :64]))[0].clamp(0, 1))


def test_progress_counts_the_windows(make):
    calls = []
    make()(torch.rand(3, 40, 30), 1, steps=2, progress=lambda done, total: calls.append((done, total)))
    windows = len(spans(20, 8, 2)) * len(spans(16, 8, 2))
    assert calls[0] == (0, 2 * windows) and calls[-1] == (2 * windows, 2 * windows)


class Cramped:
    """A velocity that runs out of memory above so many latent positions."""

    def __init__(self, positions, error):
        self.positions = positions
        self.error = error
        self.calls = 0

    def __call__(self, xt, t):
        self.calls += 1
        if xt.shape[0] * xt.shape[2] * xt.shape[3] > self.positions:
            raise self.error
        return torch.zeros_like(xt)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")]
)
@pytest.mark.parametrize("tile", [64, None])
def test_out_of_memory_halves_the_tile_and_says_so_once(make, error, tile, caplog, generator):
    velocity = Cramped(16 * 16, error)
    image = torch.rand(3, 100, 128, generator=generator)
    upscaler = make(velocity, tile=tile, window=None)
    with caplog.at_level(logging.WARNING):
        result = upscaler(image, 1)
        torch.testing.assert_close(result, image, atol=1e-5, rtol=0)
        before = velocity.calls
        upscaler(image[:, :30, :30], 1)  # the smaller tile is kept: nothing fails again
        assert velocity.calls == before + len(spans(16, 16, 4)) ** 2
    assert [record.message for record in caplog.records] == [
        "out of memory on cpu: working in tiles of 32 pixels from now on"
    ]


def test_no_memory_at_all_is_an_error(make):
    with pytest.raises(ValueError, match="out of memory on cpu even in the smallest tiles"):
        make(Cramped(0, torch.OutOfMemoryError("CUDA out of memory")))(torch.rand(3, 40, 40), 1)


def test_other_errors_are_not_taken_for_lack_of_memory(make):
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        make(Cramped(0, RuntimeError("not implemented for 'Half'")))(torch.rand(3, 40, 40), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_time": 0.0}, r"start_time must lie in \(0, 1\], got 0.0"),
        ({"color_fix": "magic"}, "color_fix must be one of wavelet, adain, none, got 'magic'"),
        ({"tile": 2}, "tile must be at least 8 pixels for this autoencoder, got 2"),
        ({"tile": "off"}, "tile must be at least 8 pixels for this autoencoder, got off"),
        ({"window": 4}, "window must be at least 8 pixels"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Upscaler(lambda x, t: x, PixelAutoencoder(downsample=2), **{"start_time": 0.25, **options})


def test_bad_calls(make):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        make()(torch.rand(3, 8, 8), steps=0)
    with pytest.raises(TypeError, match="must be a PIL image, a numpy array or a torch tensor, got str"):
        make()("photo.png")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of this process from /proc's units")
def test_memory_hardly_grows_with_the_result():
    code = (
        "import resource, numpy as np, torch; torch.set_num_threads(1)\n"
        "from fluxsr.inference import Upscaler; from fluxsr.models import PixelAutoencoder\n"
        "up = Upscaler(lambda x, t: torch.zeros_like(x), PixelAutoencoder(downsample=2), 0.25, window=128)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "up(np.zeros((64, 64, 3), np.uint8), 4); before = peak()\n"
        "result = up(np.zeros((1000, 1500, 3), np.uint8), 4)\n"
        "print(peak() - before - result.nbytes)"
    )
    extra = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert extra < 400e6  # as float32, the result and its enlarged original would be 576 MB on top


def drifting(xt, t):
    """A velocity that is no constant, of which several steps don't add up to one."""
    return 0.4 * xt + 0.1 * t.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_strength_is_the_share_of_the_way(make, steps):
    image = np.random.default_rng(0).random((24, 40, 3)).astype(np.float32) * 0.6 + 0.2
    at = {
        strength: make(drifting)(image, scale=1, steps=steps, strength=strength)
        for strength in (0, 0.25, 0.5, 1, 1.5, 2)
    }
    assert np.array_equal(at[0], make()(image, scale=1))  # the input, encoded and decoded
    assert np.array_equal(at[1], make(drifting)(image, scale=1, steps=steps))
    away = [float(np.abs(result - at[0]).mean()) for result in at.values()]
    assert away == sorted(away) and len(set(away)) == len(away)
    assert np.allclose(at[0.5], (at[0] + at[1]) / 2, atol=1e-5)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_a_strength_out_of_range_is_refused(make, strength):
    with pytest.raises(ValueError, match="strength"):
        make()(np.zeros((8, 8, 3), np.uint8), strength=strength)


@pytest.mark.parametrize("color_fix", ["none", "wavelet", "adain"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_no_numbers_is_an_error(make, value, color_fix):
    broken = make(lambda xt, t: torch.full_like(xt, value), color_fix=color_fix)
    with pytest.raises(ValueError, match="NaN or infinite"):
        broken(np.zeros((8, 8, 3), np.uint8))


def test_a_window_that_memory_can_not_hold_is_said_once(make, monkeypatch, caplog):
    monkeypatch.setattr("fluxsr.inference.memory.free_memory", lambda device: 100)
    upscaler = make(window=128)
    for _ in range(2):
        upscaler(np.zeros((8, 8, 3), np.uint8), scale=1)
    (record,) = [record for record in caplog.records if record.name.startswith("fluxsr")]
    assert record.levelname == "WARNING" and record.args[1:] == (128, 64)


def test_the_budget_follows_the_dtype(make, monkeypatch):
    monkeypatch.setattr("fluxsr.inference.memory.free_memory", lambda device: 2 * 2048 * 128**2 - 1)
    tiles = []
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(1, 1, 1, dtype=dtype)
        tiles.append(make(layer, window=128)._tile_limit(1000))
    assert tiles == [64, 128]
