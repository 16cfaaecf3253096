import pytest
import torch
from torch.utils.data import DataLoader

from fluxsr.data import EpochSampler, PhotoFolder, SRBatch, sample_seed
from fluxsr.data.samples import SRSample, collate


def test_seeds_are_stable_and_distinct() -> None:
    # A hash that changes would silently change every experiment.
    assert sample_seed(0, 0, 0) == 2278555635313361279
    assert sample_seed(0, 1) != sample_seed(0, 1, 0)
    assert sample_seed(1, 11) != sample_seed(11, 1)
    seeds = {sample_seed(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(500)}
    assert len(seeds) == 4500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_sampler_is_a_permutation_of_its_epoch() -> None:
    sampler = EpochSampler(10, seed=3)
    first = list(sampler)
    assert [epoch for epoch, _ in first] == [0] * 10
    assert sorted(index for _, index in first) == list(range(10))
    sampler.set_epoch(0)
    assert first == list(sampler)
    sampler.set_epoch(4)
    assert [epoch for epoch, _ in sampler] == [4] * 10
    sampler.set_epoch(4)
    assert [index for _, index in sampler] != [index for _, index in first]


@pytest.mark.parametrize("length", [12, 13, 15])
def test_global_batches_are_the_same_on_one_and_two_ranks(length: int) -> None:
    def batches(world_size: int, rank: int) -> list[list[tuple[int, int]]]:
        sampler = EpochSampler(length, num_replicas=world_size, rank=rank, seed=5)
        sampler.set_epoch(2)
        size = 4 // world_size
        rows = list(sampler)
        return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]

    one = batches(1, 0)
    two = [[*first, *second] for first, second in zip(batches(2, 0), batches(2, 1), strict=True)]
    assert [sorted(batch) for batch in one] == [sorted(batch) for batch in two]


def test_samples_are_the_same_with_any_number_of_workers(photos) -> None:
    dataset = PhotoFolder(photos, crop=16, samples_per_image=42, cache=True, seed=1)

    def epoch_of(workers: int, epoch: int) -> list[SRBatch]:
        sampler = EpochSampler(len(dataset), seed=1)
        sampler.set_epoch(epoch)
        loader = DataLoader(
            dataset, batch_size=25, sampler=sampler, num_workers=workers, collate_fn=collate, drop_last=True
        )
        return list(loader)

    reference = epoch_of(0, epoch=0)
    assert len(reference) == 10
    for workers in (1, 2):
        for batch, expected in zip(epoch_of(workers, epoch=0), reference, strict=True):
            assert torch.equal(batch.index, expected.index)
            assert torch.equal(batch.hr_image, expected.hr_image)
            assert torch.equal(batch.lr_image, expected.lr_image)
    assert not torch.equal(epoch_of(0, epoch=1)[0].index, reference[0].index)


def test_an_epoch_changes_the_sample_and_a_bare_index_means_epoch_zero(photos) -> None:
    dataset = PhotoFolder(photos, crop=32)
    assert torch.equal(dataset[2].lr_image, dataset[(0, 2)].lr_image)
    assert not torch.equal(dataset[(0, 2)].lr_image, dataset[(1, 2)].lr_image)
    assert torch.equal(dataset[-1].hr_image, dataset[len(dataset) - 1].hr_image)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_collate_keeps_the_latents_of_the_rows_that_have_them() -> None:
    image, small, latents = torch.rand(3, 8, 8), torch.rand(3, 2, 2), torch.rand(4, 2, 2)
    pair, photo = SRSample(image, small, 0, latents, latents), SRSample(image, small, 1)
    batch = collate([pair, pair])
    assert isinstance(batch, SRBatch)
    assert batch.hr_image.shape == (2, 3, 8, 8)
    assert batch.hr_latents.shape == batch.noise.shape == (2, 4, 2, 2)
    assert batch.index.tolist() == [0, 0] and batch.pair_rows is None
    other = pair._replace(hr_latents=latents + 1, noise=latents + 2)
    mixed = collate([photo, pair, photo, other, photo._replace(noise=latents)])
    assert mixed.pair_rows == (1, 3)
    assert torch.equal(mixed.hr_latents, torch.stack([latents, latents + 1]))
    assert torch.equal(mixed.noise, torch.stack([latents, latents + 2]))
    alone = collate([photo, photo])
    assert alone.hr_latents is None and alone.noise is None and alone.pair_rows is None
    assert collate([photo._replace(noise=latents)] * 2).noise.shape == (2, 4, 2, 2)
    with pytest.raises(ValueError, match=r"\(8, 8\), \(12, 8\).* don't fit in one batch"):
        collate([photo, photo._replace(hr_image=torch.rand(3, 12, 8))])


def test_without_a_trainer_each_iteration_is_the_next_epoch():
    sampler = EpochSampler(6, seed=1)
    first, second = list(sampler), list(sampler)
    assert {epoch for epoch, _ in first} == {0} and {epoch for epoch, _ in second} == {1} and first != second
    sampler.set_epoch(1)
    assert list(sampler) == second


def test_epochs_that_are_cut_short_are_of_one_length_and_leave_nothing_out():
    done = 0
    sampler = EpochSampler(20, seed=1, batch_size=2, batches_done=lambda: done)
    seen = []
    for _ in range(7):  # limit_train_batches=3 of 10
        taken = [index for index, _ in zip(sampler, range(6), strict=False)]
        assert len(taken) == 6
        seen += taken
        done += 3
    assert len(seen) == 42 and sorted(index for epoch, index in seen if epoch == 0) == list(range(20))
    assert sorted(index for epoch, index in seen if epoch == 1) == list(range(20))
