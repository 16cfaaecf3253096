import pytest
import torch

from fluxsr.models.devices import check_dtype, choose_device


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="there is no device 'tpu' here"):
        choose_device("tpu")


def test_dtypes():
    check_dtype("bfloat16")
    with pytest.raises(ValueError, match="got 'int8'"):
        check_dtype("int8")
