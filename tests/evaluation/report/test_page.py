import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.evaluation import bicubic, evaluate, folder_system, open_folders, write_report
from fluxsr.evaluation.document import read_results
from fluxsr.evaluation.report.pictures import chosen, focus, load_pictures, where_to_look
from fluxsr.images import write_image
from fluxsr.images.resize import imresize


@pytest.fixture(scope="module")
def run(tmp_path_factory, photo):
    """A finished run: five images, of which ``d`` is by far the worst of ``ours``, on a damaged square."""
    folder = tmp_path_factory.mktemp("run")
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate("abcde"):
        hr_image = photo[0, :, :, 24 * number : 24 * number + 160]
        ours = hr_image + 0.01 * (number + 1) * torch.randn(hr_image.shape, generator=generator)
        if name == "d":
            ours[:, 160:, :96] = 0
        images = {"HR": hr_image, "ours": ours, "LR": imresize(hr_image[None], (64, 40))[0]}
        for part, image in images.items():
            (folder / part).mkdir(exist_ok=True)
            write_image(folder / part / f"{name}.png", image)
    testset = open_folders(folder / "HR", folder / "LR")
    systems = [bicubic(), folder_system("ours", folder / "ours", testset)]
    results = evaluate(
        testset, systems, ["psnr", "lpips_nano"], output=folder / "run.json", save_images=folder / "kept"
    )
    results["benchmark"] |= {"title": "Crops & more", "published": ["RealSR", "crop"]}
    # As if it were the papers' network: their rows belong beside it then.
    (folder / "run.json").write_text(json.dumps(results).replace("lpips_nano", "lpips_alex"))
    return folder / "run.json"


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "data", "xlink:href")]


def test_the_page_has_everything_and_loads_nothing(run, tmp_path):
    text = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    assert page.links and all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"@import|url\(|https?://", text.replace("http://www.w3.org", ""))
    assert page.tags.count("script") == 1 and {"svg", "table", "input", "select", "details"} <= set(page.tags)
    for part in (
        "Crops &amp; more",
        "prefers-color-scheme",
        "FlowSR-1",
        "Worst and best images of ours",
        "width=device-width",
    ):
        assert part in text, part
    assert not [path for path in tmp_path.iterdir() if path.name != "report.html"]


def test_the_table_has_what_its_script_sorts_by(run, tmp_path):
    text = write_report([run], tmp_path / "report.html", images=0).read_text(encoding="utf-8")
    mean = read_results(run)["systems"]["ours"]["mean"]["psnr"]
    assert re.search(rf"<td>(<b>)?{mean:.2f}(</b>)?<small>\[", text)
    assert text.count('<td class="text"><span class="theirs">') == 6


def test_worst_and_best_images_and_where_to_look(run):
    results = read_results(run)
    results["metrics"] = {"psnr": results["metrics"]["psnr"]}
    assert focus(results) == "ours"
    assert chosen(results, "ours", 1) == [("d.png", "worst"), ("a.png", "best")]
    assert len(chosen(results, "ours", 4)) == 5
    top, left, side = where_to_look(load_pictures(results, "d.png"), "ours")
    assert side == 128 and top >= 96 and left <= 32
    assert focus(results, "bicubic") == "bicubic"
    with pytest.raises(ValueError, match="'theirs'"):
        write_report([run], run.with_name("report.html"), system="theirs")


def test_crops_are_cut_from_the_pictures_unchanged(run, tmp_path):
    text = write_report([run], tmp_path / "report.html", images=1).read_text(encoding="utf-8")
    found = re.findall(
        r'<img data-system="(\w+)" class="(\w*)" alt="d.png[^"]*" src="data:image/png;base64,([^"]+)"', text
    )
    assert [(system, role) for system, role, _ in found] == [("HR", "right"), ("bicubic", ""), ("ours", "left")]
    results = read_results(run)
    top, left, side = where_to_look(load_pictures(results, "d.png"), "ours")
    crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[2][2]))))
    whole = np.asarray(Image.open(results["systems"]["ours"]["files"]["d.png"]))
    np.testing.assert_array_equal(crop, whole[top : top + side, left : left + side])


def test_several_runs_share_a_table(run, tmp_path):
    text = write_report([run, run], tmp_path / "report.html", images=0).read_text(encoding="utf-8")
    assert text.count("<h2") == 2 and text.count('<table class="sortable">') == 1 and ">benchmark</button>" in text


def test_gone_pictures_are_said_and_unfinished_runs_refused(run, tmp_path):
    results = read_results(run)
    for item in results["images"].values():
        item["hr"] = str(tmp_path / "gone.png")
    for entry in results["systems"].values():
        entry["files"] = {}
    (tmp_path / "gone.json").write_text(json.dumps(results))
    text = write_report([tmp_path / "gone.json"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No pictures" in text
    del results["comparisons"]
    (tmp_path / "gone.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"gone.json is of a run that was interrupted"):
        write_report([tmp_path / "gone.json"], tmp_path / "report.html")
