import pytest
import torch

from fluxsr.models import PixelAutoencoder
from fluxsr.models.tiling import TiledVelocity, in_tiles, spans


def test_a_pointwise_model_is_tiled_exactly(generator):
    xt = torch.randn(2, 3, 26, 40, generator=generator)
    velocity = lambda x, t: x.sin() * t.reshape(-1, 1, 1, 1)
    t = torch.rand(2, generator=generator)
    torch.testing.assert_close(TiledVelocity(velocity, 8, 3)(xt, t), velocity(xt, t))


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 2), (12, 6), (10, 9)])
@pytest.mark.parametrize("size", [(8, 30), (14, 22), (32, 10)])
def test_tiles_cover_everything_on_even_starts_and_bounded_size(tile, overlap, size):
    seen = []

    def velocity(x, t):
        seen.append(x.shape[-2:])
        return torch.ones_like(x)

    result = TiledVelocity(velocity, tile, overlap)(torch.zeros(1, 1, *size), torch.zeros(1))
    torch.testing.assert_close(result, torch.ones_like(result))
    assert all(max(shape) <= tile and min(shape) % 2 == 0 for shape in seen)


@pytest.mark.parametrize("length", [2, 8, 10, 24, 50])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 2), (8, 7), (12, 6)])
@pytest.mark.parametrize("resolution", [1, 8])
def test_weights_of_all_tiles_sum_to_one(length, tile, overlap, resolution):
    total = torch.zeros(length * resolution)
    for start, size, weights in spans(length, tile, overlap, resolution):
        assert start % 2 == 0 and size == min(tile, length) and weights.min() > 0
        total[start * resolution : (start + size) * resolution] += weights
    torch.testing.assert_close(total, torch.ones_like(total))


def test_neighbors_blend_without_a_step():
    # Every tile answers with its own number: across a border the result must move gradually.
    counter = iter(range(100))
    result = TiledVelocity(lambda x, t: torch.full_like(x, next(counter)), 16, 8)(
        torch.zeros(1, 1, 16, 40), torch.zeros(1)
    )
    assert result.diff(dim=-1).abs().max() <= 2 / 9 + 1e-6  # two ramps of 8 meet


def test_small_latents_pass_whole():
    calls = []
    TiledVelocity(lambda x, t: calls.append(x.shape) or x, 16, 4)(torch.zeros(1, 1, 16, 16), torch.zeros(1))
    assert calls == [(1, 1, 16, 16)]


def test_errors():
    with pytest.raises(ValueError, match="even number of latent positions, at least 2, got 7"):
        TiledVelocity(lambda x, t: x, 7, 2)
    with pytest.raises(ValueError, match=r"overlap must lie in \[0, tile\) = \[0, 8\), got 8"):
        TiledVelocity(lambda x, t: x, 8, 8)


def test_an_autoencoder_in_tiles_is_the_whole_one(generator):
    autoencoder, image = PixelAutoencoder(4), torch.rand(1, 3, 88, 120, generator=generator)
    seen = []

    def encode(window):
        seen.append(max(window.shape[-2:]))
        return autoencoder.encode(window)

    latents = in_tiles(encode, image, 8, 2, reads=4)
    torch.testing.assert_close(latents, autoencoder.encode(image))
    torch.testing.assert_close(in_tiles(autoencoder.decode, latents, 8, 2, writes=4), image)
    assert max(seen) == 32 and len(seen) > 4
