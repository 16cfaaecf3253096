"""The page as people use it, in a real browser and from a file, and what their votes come to."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from fluxsr.evaluation.study import merge_votes, write_study
from fluxsr.evaluation.study.scores import POINTS
from fluxsr.evaluation.study.voting_page import damaged
from fluxsr.images import read_image, write_image

IMAGES = 20


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two systems, by which one they are told apart: the first ones are red, the second ones green."""
    place = tmp_path_factory.mktemp("systems")
    generator = torch.Generator().manual_seed(0)
    for number in range(IMAGES):
        texture = torch.rand(3, 48, 64, generator=generator) * 0.4
        for channel, name in enumerate(("ours", "theirs", "third")):
            picture = texture.clone()
            picture[channel] += 0.5
            (place / name).mkdir(exist_ok=True)
            write_image(place / name / f"{number:02}.png", picture)
        (place / "inputs").mkdir(exist_ok=True)
        write_image(place / "inputs" / f"{number:02}.png", texture[:, ::4, ::4])
    return place


def sources(tab) -> dict[str, str]:
    """What each side shows, once both pictures are there."""
    tab.wait_for_function("!document.querySelector('.choice').disabled")
    return {side: tab.locator(f"[data-side={side}] .picture").get_attribute("src") for side in ("left", "right")}


class Person:
    """Votes on a page in a browser profile of its own."""

    def __init__(self, browser, page: Path, key: Path, tmp_path: Path) -> None:
        self.context = browser.new_context(accept_downloads=True, viewport={"width": 1000, "height": 700})
        self.page, self.folder = page, tmp_path
        self.names = json.loads(key.read_text())["systems"]
        self.errors: list[str] = []
        self.open()
        content = json.loads(self.tab.locator("#study").text_content())
        self.shown = {
            source: self.names.get(code, code)
            for image in content["images"]
            for code, source in image["pictures"].items()
        }

    def open(self) -> None:
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(30_000)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.errors.append(request.url) if "http" in request.url[:5] else None)
        self.tab.goto(self.page.resolve().as_uri())
        self.tab.locator("#begin").click()

    def pair(self) -> dict[str, str]:
        return {self.shown[source]: side for side, source in sources(self.tab).items()}

    def prefer(self, name: str | None) -> None:
        """Vote for a system by a click or a key, or for none; the damaged picture is never preferred."""
        before = self.tab.locator("#count").text_content()
        pair = self.pair()
        assert not self.tab.locator(".pane.chosen").count()  # nothing speaks for one side before a hand does
        if "sanity" in pair:
            name = next(other for other in pair if other != "sanity")
        side = pair[name] if name is not None else "tie"
        if len(self.page.name) % 2:
            self.tab.locator(f"[data-choice={side}]").click()
        else:
            self.tab.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowDown"}[side])
        self.tab.wait_for_function("text => document.getElementById('count').textContent !== text", arg=before)

    def save(self) -> Path:
        with self.tab.expect_download() as download:
            self.tab.locator(".save:visible").click()
        target = self.folder / download.value.suggested_filename
        download.value.save_as(target)
        return target


def test_twenty_votes_of_each_of_two_people_come_to_what_a_hand_computes(folders, browser, tmp_path):
    study = write_study(
        {"ours": folders / "ours", "theirs": folders / "theirs"}, tmp_path / "study.html", sanity=2, seed=1
    )
    assert study.pictures is None
    files, sides = [], []
    for wins, losses in ((11, 5), (9, 4)):
        person = Person(browser, study.page, study.key, tmp_path)
        plan = ["ours"] * wins + ["theirs"] * losses + [None] * (IMAGES - wins - losses)
        while plan:
            if len(plan) == IMAGES // 2:  # half way it is closed, and opened again
                count = person.tab.locator("#count").text_content()
                person.tab.close()
                person.open()
                assert person.tab.locator("#count").text_content() == count
            pair = person.pair()
            person.prefer(None if "sanity" in pair else plan[-1])
            if "sanity" not in pair:
                sides.append(pair["ours"])
                plan.pop()
        while person.tab.locator("#vote").is_visible():  # a sanity pair may come last
            person.prefer(None)
        assert person.tab.locator("#end").is_visible()
        files.append(person.save())
        assert not person.errors
        person.context.close()
    scores = merge_votes(files, study.key)
    # By hand: 20 wins, 9 losses and 11 ties, which are half a win for each.
    expected = 400 * math.log10((20 + 5.5) / (9 + 5.5)) / 2
    assert [system.name for system in scores.systems] == ["ours", "theirs"]
    assert scores.systems[0].score == pytest.approx(expected, abs=1e-6) == -scores.systems[1].score
    assert (scores.systems[0].wins, scores.systems[0].ties, scores.systems[0].losses) == (20, 11, 9)
    assert scores.systems[0].interval[0] < expected < scores.systems[0].interval[1]
    assert (scores.votes, scores.people, scores.images, scores.left_out) == (40, 2, IMAGES, 0)
    assert scores.pairs[0].preferred == pytest.approx(25.5 / 40)
    assert 10 <= sides.count("left") <= 30  # sides are drawn


def test_a_vote_is_taken_back_and_both_pictures_zoom_in_step(folders, browser, tmp_path):
    systems = {name: folders / name for name in ("ours", "theirs", "third")}
    study = write_study(
        systems, tmp_path / "study.html", inputs=folders / "inputs", votes=6, sanity=0, inline=False, seed=2
    )
    assert study.pictures is not None and len(list(study.pictures.glob("*.png"))) == IMAGES * 4
    person = Person(browser, study.page, study.key, tmp_path)
    assert person.tab.locator("#count").text_content() == "0 of 6"
    first = sources(person.tab)
    person.prefer(None)
    assert person.tab.locator("#count").text_content() == "1 of 6"
    person.tab.keyboard.press("Backspace")
    assert person.tab.locator("#count").text_content() == "0 of 6" and sources(person.tab) == first

    def transforms():
        return [
            person.tab.locator(f"[data-side={side}] .picture").evaluate("e => e.style.transform")
            for side in ("left", "right")
        ]

    fitted = transforms()
    person.tab.get_by_role("button", name="4:1").click()
    person.tab.locator("[data-side=left]").hover(position={"x": 30, "y": 40})
    person.tab.mouse.wheel(0, -400)
    person.tab.mouse.down()
    person.tab.mouse.move(200, 260, steps=3)
    person.tab.mouse.up()
    zoomed = transforms()
    assert zoomed[0] == zoomed[1] != fitted[0] and fitted[0] == fitted[1]
    scale = float(re.search(r"scale\(([\d.]+)\)", zoomed[0])[1])
    assert scale == pytest.approx(4 * math.exp(0.8), rel=1e-3)
    assert not person.tab.locator("[data-side=right] .input").is_visible()
    person.tab.keyboard.down(" ")
    assert person.tab.locator("[data-side=right] .input").is_visible()
    person.tab.keyboard.up(" ")
    assert not person.tab.locator("[data-side=right] .input").is_visible()
    pairs = []
    while person.tab.locator("#vote").is_visible():
        pairs.append(frozenset(person.pair()))
        person.prefer(None)
    # A part of the pairs was asked for: each pair of systems comes up as often as any other.
    assert len(pairs) == 6 and all(pairs.count(pair) == 2 for pair in set(pairs)) and len(set(pairs)) == 3
    assert merge_votes([person.save()], study.key).systems[0].score == pytest.approx(0, abs=1e-6)
    assert not person.errors


def test_nobody_can_tell_whose_pictures_they_are(folders, tmp_path):
    study = write_study({"ours": folders / "ours", "theirs": folders / "theirs"}, tmp_path / "study.html", inline=False)
    text = study.page.read_text()
    assert not re.search(r"\bours\b|\btheirs\b", text) and "http" not in text.replace("http-equiv", "")
    assert {"ours", "theirs"} == set(json.loads(study.key.read_text())["systems"].values())
    names = [path.stem for path in study.pictures.iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{12}", name) for name in names)
    again = write_study({"ours": folders / "ours", "theirs": folders / "theirs"}, tmp_path / "other.html", inline=False)
    assert not {path.stem for path in again.pictures.iterdir()} & set(names)


def test_a_title_is_no_markup(folders, tmp_path):
    title = "</script><!-- <script> & 'quotes'"
    study = write_study({"a": folders / "ours", "b": folders / "theirs"}, tmp_path / "study.html", title=title)
    (data,) = re.findall(
        r'<script type="application/json" id="study">(.*?)</script>', study.page.read_text(), re.DOTALL
    )
    assert "<" not in data and json.loads(data)["title"] == title


def test_a_damaged_picture_has_lost_its_details(folders):
    picture = read_image(folders / "ours" / "00.png")
    assert damaged(picture).shape == picture.shape
    assert damaged(picture).diff(dim=-1).abs().mean() < 0.2 * picture.diff(dim=-1).abs().mean()


def vote(left, right, choice, image=0):
    return {"image": image, "left": left, "right": right, "choice": choice, "seconds": 1.0}


@pytest.fixture
def saved(folders, tmp_path):
    study = write_study({"ours": folders / "ours", "theirs": folders / "theirs"}, tmp_path / "study.html", seed=3)
    key = json.loads(study.key.read_text())
    a, b = key["systems"]

    def save(participant, *votes, name=None):
        path = tmp_path / f"{name or participant}.json"
        content = {"format": 1, "study": key["study"], "participant": participant, "votes": votes}
        path.write_text(json.dumps(content))
        return path

    return study.key, a, b, save


def test_who_fails_the_sanity_pairs_is_left_out(saved):
    key, a, b, save = saved
    good = save("good", vote(a, b, "left"), vote(b, a, "tie", 1), vote(b, a, "left", 2), vote("sanity", a, "right"))
    bad = save("bad", *[vote(a, b, "right", image) for image in range(9)], vote("sanity", a, "left"))
    blind = save("blind", vote(a, b, "right"), vote(a, "sanity", "tie"))
    scores = merge_votes([good, bad, blind], key)
    assert (scores.people, scores.left_out, scores.votes) == (1, 2, 3)
    assert scores.systems[0].score == pytest.approx(0) and scores.left_share == 1.0
    with pytest.raises(ValueError, match="everybody failed the sanity pairs"):
        merge_votes([bad], key)


def test_of_a_persons_files_the_fullest_counts(saved):
    key, a, b, save = saved
    votes = [vote(a, b, "left"), vote(a, b, "right", 1), vote(a, b, "left", 2)]
    files = [save("one", *votes[:2], name="early"), save("one", *votes, name="late"), save("two", vote(b, a, "left"))]
    scores = merge_votes(files, key)
    assert (scores.people, scores.votes) == (2, 4)
    assert scores.systems[0].score == pytest.approx(math.log(1) * POINTS)


@pytest.mark.parametrize(
    ("left", "right", "choice", "image"),
    [
        ("a", "nobody", "left", 0),
        ("a", "a", "left", 0),
        ("a", "b", "up", 0),
        *(("a", "b", "left", image) for image in (IMAGES, -1, True)),
    ],
)
def test_a_vote_that_the_page_can_not_have_saved_is_named(saved, left, right, choice, image):
    key, a, b, save = saved
    codes = {"a": a, "b": b}
    file = save("x", vote(a, b, "left"), vote(codes[left], codes.get(right, right), choice, image))
    with pytest.raises(ValueError, match=r"x.json holds a vote"):
        merge_votes([file], key)


@pytest.mark.parametrize("change", [{"study": "other"}, {"votes": None}, {"participant": ["x"]}, {"format": 2}])
def test_files_that_do_not_belong_are_named(saved, change):
    key, a, b, save = saved
    file = save("x", vote(a, b, "left"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=r"x.json is"):
        merge_votes([file], key)


@pytest.mark.parametrize("name", ["study.key.json", "study.html", None])
def test_what_is_no_file_of_votes_is_named(saved, tmp_path, name):
    with pytest.raises(ValueError, match=name or "give the files"):
        merge_votes([tmp_path / name] if name else [], saved[0])


@pytest.mark.parametrize(
    ("folder", "page", "votes", "named"),
    [
        (None, "study.html", None, "got ours"),
        ("theirs", "study.json", None, "study.json"),
        ("theirs", "study.html", 0, "got 0"),
        ("inputs", "study.html", None, r"b, beside ours: .*16x12 instead of 64x48"),
    ],
)
def test_what_can_not_be_compared_is_said(folders, tmp_path, folder, page, votes, named):
    systems = {"ours": folders / "ours"} | ({"b": folders / folder} if folder else {})
    with pytest.raises(ValueError, match=named):
        write_study(systems, tmp_path / page, votes=votes)
    assert not (tmp_path / page).exists()
