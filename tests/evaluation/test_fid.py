import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxsr.evaluation.fid import check_set, fid


def test_small_sets_are_refused():
    with pytest.raises(ValueError, match=r"fid on 49 images"):
        check_set(49)


def test_pyiqa_is_asked_about_exactly_these_files(tmp_path, monkeypatch):
    for name in range(60):
        (tmp_path / f"{name}.png").touch()
    seen = []

    def metric(results, references, verbose):
        seen.extend(sorted(path.resolve() for path in Path(folder).iterdir()) for folder in (results, references))
        return 12.5

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=lambda name, device: metric))
    files = sorted(tmp_path.iterdir())
    assert fid(files[:50], files[5:]) == 12.5
    assert seen == [sorted(files[:50]), sorted(files[5:])]
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ValueError, match=r"fluxsr\[metrics\].*non-commercial"):
        check_set(60)
