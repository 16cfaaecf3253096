from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.processes import ALONE
from fluxsr.training.pair_photos import find_photos, middle_square


def test_the_middle_square_is_cut_and_resized(generator):
    image = torch.rand(3, 8, 12, generator=generator)
    assert middle_square(image, 8).equal(image[:, :, 2:10])
    small = middle_square(torch.full((3, 20, 10), 0.25), 5)
    torch.testing.assert_close(small, torch.full((3, 5, 5), 0.25))


class Two:
    """One of two processes, as threads."""

    def __init__(self, rank, values, barrier):
        self.rank, self.first, self.values, self.barrier = rank, rank == 0, values, barrier

    def share(self, items):
        return list(items[self.rank :: 2])

    def gather(self, value):
        self.values[self.rank] = value
        self.barrier.wait(20)
        found = list(self.values)
        self.barrier.wait(20)
        return found


@pytest.mark.parametrize("num", [1, 4, 5, 99])
def test_the_first_good_photos_are_found_by_one_process_or_two(tmp_path, num):
    for index in range(8):
        pixels = np.random.default_rng(4 if index == 5 else index).integers(0, 256, (9, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")  # 5 is a copy of 4
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:120])
    found = find_photos(tmp_path, num, 8, (), ALONE)
    assert [path.stem for path in found.values()] == [*"023467"][:num]
    values, barrier, results = [None, None], threading.Barrier(2), {}

    def work(rank):
        results[rank] = find_photos(tmp_path, num, 8, (), Two(rank, values, barrier))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(results[0].items()) == list(results[1].items()) == list(found.items())


def test_photos_that_are_known_are_not_decoded_again(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    known = find_photos(tmp_path, 1, 8, ())
    monkeypatch.setattr("fluxsr.training.pair_photos.read_pixels", None)
    assert find_photos(tmp_path, 1, 8, known) == known
