import pytest
import torch

from fluxsr.inference import memory


def test_the_tile_fits_into_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 8192 * 512**2)
    device = torch.device("cpu")
    assert memory.affordable_tile(device, 8192, 64, 4096) == 512
    assert memory.affordable_tile(device, 8192, 64, 300) == 300
    assert memory.affordable_tile(device, 8192, 64, 600) == 512
    assert memory.affordable_tile(device, 8192 * 10**6, 64, 4096) == 64


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_looks_like(error, expected):
    assert memory.is_out_of_memory(error) is expected
