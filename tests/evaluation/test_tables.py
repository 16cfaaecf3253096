import csv
import io

import pytest

from fluxsr.evaluation import evaluate, folder_system
from fluxsr.evaluation.tables import caption, print_table, rows, to_csv, to_markdown, warnings


@pytest.fixture
def results(folders, testset):
    systems = [folder_system(name, folders / name, testset) for name in ("worse", "better")]
    found = evaluate(testset, systems, ["psnr", "ssim", "lpips_nano"])
    found["benchmark"] |= {
        "title": "RealSR",
        "published": ["RealSR", "crop"],
        "expected_images": 100,
        "original": False,
    }
    return found


def test_own_rows_come_first_and_published_ones_keep_apart(results):
    found = rows(results)
    assert [row.name for row in found[:3]] == ["worse", "better", "StableSR, 200 steps (flowsr)"]
    mean, low = results["systems"]["worse"]["mean"]["psnr"], results["systems"]["worse"]["interval"]["psnr"][0]
    assert found[0].cells["psnr"].startswith(f"{mean:.2f} [{low:.2f}, ")
    (row,) = (row for row in found if row.name == "FlowSR, 1 step (flowsr)")
    # LPIPS of another network than the paper's stays empty.
    assert row.published and row.cells == {"psnr": "25.54", "ssim": "0.7434"}


def test_markdown_holds_means_differences_warnings_and_versions(results):
    text = to_markdown(results)
    for part in (
        "| system | psnr ↑ | ssim ↑ | lpips_nano ↓ |",
        "| FlowSR, 1 step (flowsr) | 25.54 | 0.7434 |  |",
        "| psnr | better - worse | +",
        "their checksum differs",
        "RealSR has 100 images, these are 3",
        "rows are left out",
        "measure ssim_tables",
        "torchmetrics ",
        caption(results),
    ):
        assert part in text, part


def test_csv_holds_every_value_exactly(results):
    text = to_csv(results)
    assert text.startswith("# protocol: scale=4, ") and "\n# versions: fluxsr=" in text
    read = list(csv.DictReader(io.StringIO("".join(line for line in text.splitlines(True) if line[0] != "#"))))
    assert len(read) == 2 * 3 + 2
    for row in read:
        entry = results["systems"][row["system"]]
        values = entry["mean"] if row["image"] == "mean" else entry["images"][row["image"]]
        assert {name: float(row[name]) for name in values} == values


def test_the_terminal_shows_whole_numbers_and_names(results, capsys):
    print_table(results)
    shown = capsys.readouterr().out
    for part in ("worse", "better", "lpips_nano ↓", "OSEDiff, 1 step (flowsr)", "0.7434", "note: "):
        assert part in shown, part
    assert "…" not in shown


def test_metrics_of_pyiqa_and_unknown_checksums_are_pointed_out(results):
    results["metrics"]["musiq"] = {"lower_is_better": False, "needs_reference": False, "decimals": 2}
    results["benchmark"] |= {"original": None, "published": None}
    said = " ".join(warnings(results))
    assert "musiq was measured by pyiqa, whose license is non-commercial" in said and "no checksum of RealSR" in said
