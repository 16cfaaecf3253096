import csv
import io

import pytest

from fluxsr.evaluation import evaluate, folder_system, published_efficiency, published_results
from fluxsr.evaluation.tables import caption, print_table, published_columns, rows, to_csv, to_markdown, warnings


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


def test_rows_are_as_printed():
    (row,) = (row for row in published_results("RealSR", "full") if row.method == "FluxSR")
    assert (row.source, row.steps, row.values["psnr"], row.values["qalign"]) == ("fluxsr", 1, 24.83, 4.3781)
    (row,) = (row for row in published_results("RealSR", "crop") if row.method == "OSEDiff")
    assert (row.source, row.values["lpips"], row.values["niqe"]) == ("flowsr", 0.2921, 5.65)
    assert {"FlowSR": "0.14", "DoSSR": "0.28"}.items() <= {
        row["method"]: row["seconds"] for row in published_efficiency()
    }.items()


def test_nothing_was_lost_or_changed_in_retyping(assets):
    reference = assets.parent / "reference" / "published_results.csv"
    if not reference.is_file():
        pytest.skip("no reference tables here")
    with reference.open() as file:
        theirs = [row for row in csv.DictReader(file) if "ablation" not in row["source"]]
    ours = published_results()
    assert len(ours) == len(theirs)
    for mine, row in zip(ours, theirs, strict=True):
        numbers = {name: float(row[name]) for name in mine.values}
        assert (mine.source, mine.dataset, mine.method) == (row["source"], row["dataset"], row["method"])
        assert mine.values == numbers and sum(bool(value) for value in list(row.values())[4:]) == len(numbers)


def test_full_images_and_crops_are_never_in_one_list():
    for dataset in ("RealSR", "DIV2K-val", "DRealSR"):
        assert {row.source for row in published_results(dataset, "full")} == {"fluxsr"}
        assert {row.source for row in published_results(dataset, "crop")} == {"flowsr"}


def test_columns_belong_to_the_nearest_metric():
    benchmark = {"published": ("RealSR", "crop")}
    metrics = ["psnr", "ssim", "ssim_tables", "lpips_vgg", "pyiqa:musiq"]
    assert published_columns({"benchmark": benchmark, "metrics": metrics}) == {
        "psnr": "psnr",
        "ssim_tables": "ssim",
        "pyiqa:musiq": "musiq",
    }
    assert published_columns({"benchmark": benchmark, "metrics": ["ssim"]}) == {"ssim": "ssim"}
    assert published_columns({"benchmark": {"published": None}, "metrics": ["psnr"]}) == {}


@pytest.mark.parametrize(
    ("protocol", "metrics", "images", "parts"),
    [
        ({"crop": 0, "lr": "files"}, ["psnr", "ssim_tables"], 100, ["full images"]),
        (
            {"crop": 4, "lr": "bicubic"},
            ["ssim"],
            10,
            ["full images", "over 100 images, this run's over 10", "4 pixels", "(bicubic)", "ssim_tables"],
        ),
    ],
)
def test_what_differs_from_the_papers_is_said(results, protocol, metrics, images, parts):
    facts = {"lower_is_better": False, "needs_reference": True, "decimals": 2, "source": "fluxsr"}
    results["benchmark"] |= {"images": images, "expected_images": images, "original": True}
    results |= {"protocol": protocol, "metrics": dict.fromkeys(metrics, facts)}
    said = warnings(results)
    assert len(said) == len(parts) and all(part in one for part, one in zip(parts, said, strict=True))
