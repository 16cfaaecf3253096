import re
from xml.etree import ElementTree

import pytest

from fluxsr.evaluation.report.plots import LEFT, RIGHT, Axis, Point, axis, line, scatter


def test_the_better_end_is_right_and_up():
    up, down = axis("psnr", [20, 30]), axis("lpips", [0.1, 0.5], lower_is_better=True)
    assert LEFT < up.x(20) < up.x(30) < RIGHT and up.y(30) < up.y(20)
    assert down.x(0.1) > down.x(0.5) and down.y(0.1) < down.y(0.5)
    assert axis("one", [3.0]).x(3.0) == (LEFT + RIGHT) / 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (26.43, 28.77), (-40, 3), (1000, 1e6), (0.1612, 0.1618)])
def test_ticks_are_round_and_few(low, high):
    found = Axis("", high, low).ticks()
    assert 2 <= len(found) <= 7 and low <= found[0] <= found[-1] <= high
    step = found[1] - found[0]
    assert re.fullmatch(r"[125]", f"{step:e}"[0])


def test_a_scatter_plot_names_its_points_and_escapes_them():
    points = [Point("<ours>", 28, 0.2, 0), Point("OSEDiff-1", 25, 0.3, None)]
    svg = scatter(points, axis("psnr", [25, 28]), axis("lpips", [0.2, 0.3], True))
    tree = ElementTree.fromstring(svg)
    ours, theirs = tree.findall("circle")
    assert float(ours.get("cx")) > float(theirs.get("cx")) and float(ours.get("cy")) < float(theirs.get("cy"))
    assert theirs.get("class") == "published" and "&lt;ours&gt;" in svg


def test_labels_of_near_points_lie_apart():
    points = [Point(f"method {number}", 25 + 0.01 * number, 0.3, None) for number in range(4)]
    points.append(Point("far", 28, 0.2, 0))
    svg = scatter(points, axis("x", [25, 28]), axis("y", [0.2, 0.3]))
    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="theirs"', svg)
    assert len(set(places)) == 4
    rows = sorted(float(y) for _, y in places)
    assert rows[-1] - rows[0] > 14


def test_a_line_leaves_out_what_is_no_number():
    svg = line([(0, 1.0), (1, float("nan")), (2, 3.0)], "step", "loss")
    (drawn,) = ElementTree.fromstring(svg).findall("polyline")
    assert len(drawn.get("points").split()) == 2
    assert line([], "step", "loss") == ""
