import pytest
import torch

from fluxsr.inference.strips import RowBuffer, blended
from fluxsr.models.tiling import TiledVelocity


class Whole:
    """Rows of a tensor that is there."""

    def __init__(self, image):
        self.image = image

    def rows(self, top, bottom):
        return self.image[:, top:bottom]


def test_a_buffer_gives_any_ranges_that_do_not_go_back(generator):
    image = torch.rand(2, 40, 3, generator=generator)
    buffer = RowBuffer(iter(image.split([1, 9, 3, 20, 7], dim=1)))
    for top, bottom in ((0, 4), (2, 11), (9, 10), (10, 33), (32, 40)):
        assert torch.equal(buffer.rows(top, bottom), image[:, top:bottom])


def test_a_buffer_forgets():
    drawn = []

    def strips():
        for number in range(100):
            drawn.append(number)
            yield torch.full((1, 4, 2), float(number))

    buffer = RowBuffer(strips())
    for top in range(0, 392, 4):
        buffer.rows(top, top + 8)
        assert len(buffer._kept) <= 2
    assert drawn == list(range(99))


@pytest.mark.parametrize(("tile", "overlap"), [(8, 2), (8, 7), (12, 0), (64, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_strips_are_the_rows_of_the_whole(tile, overlap, batch, generator):
    # The velocity differs from tile to tile and within a tile, so nothing but the right blending gives the right rows.
    xt = torch.randn(3, 30, 22, generator=generator)
    velocity = lambda x, t: x * x.mean(dim=(-1, -2), keepdim=True) + x.roll(1, -1)
    expected = TiledVelocity(velocity, tile, overlap)(xt[None], torch.zeros(1))[0]
    function = lambda x: velocity(x, None)
    strips = list(blended(function, Whole(xt), (30, 22), tile=tile, overlap=overlap, batch=batch))
    torch.testing.assert_close(torch.cat(strips, dim=1), expected)
    assert all(strip.shape[1] <= tile for strip in strips)


@pytest.mark.parametrize(("reads", "writes"), [(4, 1), (1, 4)])
def test_stages_that_change_the_resolution(reads, writes, generator):
    image = torch.rand(1, 20 * reads, 28 * reads, generator=generator)
    if reads > 1:
        function = lambda x: torch.nn.functional.avg_pool2d(x, reads)
    else:
        function = lambda x: torch.nn.functional.interpolate(x, scale_factor=writes)
    strips = blended(function, Whole(image), (20, 28), tile=8, overlap=4, reads=reads, writes=writes)
    torch.testing.assert_close(torch.cat(list(strips), dim=1), function(image[None])[0])
