from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch

from fluxsr.losses.weights import BACKBONES, DISTS_HEADS, find_weights, load_weights, read_state_dict

ALEX = BACKBONES["alex"]


@pytest.fixture(autouse=True)
def _empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUXSR_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)


def put(path: Path, value: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"features.0.weight": torch.full((2,), value)}, path)
    return path


def value(path: Path | None = None) -> float:
    return float(load_weights(ALEX, path)["features.0.weight"][0])


def test_places_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth", 3)
    assert value() == 3
    put(tmp_path / "folder" / "deep" / "down" / "alexnet_features_fp16.pth", 2)
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path / "folder"))
    assert value() == 2
    assert value(put(tmp_path / "mine.bin", 1)) == 1
    assert value(tmp_path / "folder") == 2


def test_a_folder_without_a_match_falls_through_to_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    put(tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth", 3)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path / "other"))
    assert value() == 3


def test_the_first_of_several_in_the_order_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "b" / "alexnet_features.pth", 2)
    put(tmp_path / "a" / "alexnet_features.pth", 1)
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    assert value() == 1


def test_dists_heads_are_found_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "heads" / "dists" / "weights.pt")
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    assert find_weights(DISTS_HEADS) == path


def test_dists_heads_are_found_where_the_authors_package_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="pip install --no-deps --target FOLDER dists-pytorch"):
        load_weights(DISTS_HEADS)
    path = put(tmp_path / "DISTS_pytorch" / "weights.pt")
    assert find_weights(DISTS_HEADS) == path


def test_half_precision_is_cast_and_integers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({"w": torch.ones(2, dtype=torch.float16), "n": torch.tensor(3)}, path)
    state = read_state_dict(path)
    assert state["w"].dtype == torch.float32
    assert state["n"].dtype == torch.int64


def test_without_network_the_error_lists_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path / "folder"))
    with pytest.raises(FileNotFoundError) as caught:
        load_weights(ALEX)
    message = str(caught.value)
    for part in ("weights=", "alexnet_features*.pth", "FLUXSR_WEIGHTS", str(tmp_path / "folder"), "no network"):
        assert part in message
    assert str(tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth") in message
    with pytest.raises(FileNotFoundError, match="no download address"):
        load_weights(DISTS_HEADS)


def test_bad_places_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_weights(ALEX, tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="alexnet_features"):
        load_weights(ALEX, tmp_path)
    monkeypatch.setenv("FLUXSR_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere"):
        load_weights(ALEX)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(put(tmp_path / "whole.pth").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"damaged\.pth can't be read"):
        load_weights(ALEX, damaged)
    listed = tmp_path / "list.pth"
    torch.save([torch.ones(1)], listed)
    with pytest.raises(ValueError, match="but a list"):
        load_weights(ALEX, listed)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(ValueError, match=r"module\.pth"):
        read_state_dict(path)
