import shutil

import pytest

from fluxsr.evaluation import BENCHMARKS, open_benchmark
from fluxsr.evaluation.benchmarks import digest, find_benchmark
from fluxsr.evaluation.metrics import METRICS
from tests.evaluation.conftest import save


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_is_found_in_each_of_its_layouts(name, tmp_path):
    benchmark = BENCHMARKS[name]
    for number, layout in enumerate(benchmark.layouts):
        root = tmp_path / str(number)
        for pattern, side in ((layout.hr, 8 * benchmark.scale), (layout.lr, 8)):
            if pattern:
                path = pattern.replace("*", "7", 1) if pattern.count("*") == 1 else pattern.replace("*", "7")
                save((root / benchmark.folders[0] / path).with_suffix(".png"), (side, side))
        for place in (root, root / benchmark.folders[0]):
            _, hr, lr = find_benchmark(name, place)
            assert (hr or "").endswith(layout.hr) and lr.endswith(layout.lr), layout
        opened, _ = open_benchmark(name, root)
        assert len(opened.items) == 1 and opened.has_reference == bool(layout.hr)
    assert benchmark.source
    assert all(metric in METRICS for metric in benchmark.metrics)
    assert layout.hr or not any(metric != "niqe" for metric in benchmark.metrics)


@pytest.mark.parametrize("name", [name for name, benchmark in BENCHMARKS.items() if benchmark.sha256])
def test_those_at_hand_are_the_originals(name, assets):
    opened, benchmark = open_benchmark(name, assets / "bench")
    assert opened.facts["original"] is True and len(opened.items) == benchmark.images


def test_a_changed_file_changes_the_digest_and_a_new_name_does_not(tmp_path, assets):
    shutil.copytree(assets / "bench" / "Set5_x4", tmp_path / "Set5")
    files = sorted((tmp_path / "Set5").iterdir())
    before = digest(files)
    assert before == BENCHMARKS["set5"].sha256 == digest(reversed(files))
    save(files[0], (512, 512))
    assert digest(files) != before
    assert open_benchmark("set5", tmp_path)[0].facts["original"] is False


@pytest.mark.parametrize(
    ("name", "rooted", "named"), [("set6", True, "'set6'"), ("set14", True, "SelfExSR"), ("DIV2K", False, "--root")]
)
def test_what_is_not_there_is_named_with_where_to_get_it(tmp_path, name, rooted, named):
    with pytest.raises(ValueError, match=named):
        find_benchmark(name, tmp_path if rooted else None)
