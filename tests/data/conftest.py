from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

MakePhoto = Callable[..., Tensor]
SavePhoto = Callable[..., Path]


def _photo_like(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[0]
    rows = torch.arange(height)[:, None]
    columns = torch.arange(width)[None]
    image = image + 0.2 * ((rows // 7 + columns // 11) % 2) - 0.1
    image = image + 0.02 * torch.randn(3, height, width, generator=generator)
    return (image.clamp(0, 1) * 255).round() / 255


def _save_photo(path: Path, image: Tensor, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests that call the parts of the degradation, which are slow with several threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def photo_like() -> MakePhoto:
    """`photo_like(height, width, seed=0)`: `(3, H, W)` in whole 1/255 with smooth areas, edges and some texture."""
    return _photo_like


@pytest.fixture(scope="session")
def save_photo() -> SavePhoto:
    """`save_photo(path, image, **options)`: write by Pillow, which this package's own writer is compared with."""
    return _save_photo


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six photos of several sizes, one in a subfolder."""
    folder = tmp_path / "photos"
    for index, (height, width) in enumerate([(96, 80), (80, 120), (100, 100), (64, 64), (90, 70), (81, 83)]):
        name = f"sub/{index}.png" if index == 4 else f"{index}.png"
        _save_photo(folder / name, _photo_like(height, width, seed=index))
    return folder
