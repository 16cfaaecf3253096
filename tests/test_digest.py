import hashlib

import pytest

from fluxsr.digest import file_digest


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**20 + 1])
def test_it_is_that_of_the_whole_file(tmp_path, length):
    content = (bytes(range(251)) * (length // 251 + 1))[:length]
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == file_digest(str(tmp_path / "a")) == hashlib.sha256(content).hexdigest()


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        file_digest(tmp_path / "nowhere")
