"""Relative links and anchors point to something, snippets exist, and the navigation lists every page."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, ROOT, SNIPPET, anchors, prose

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def broken(page) -> list[str]:
    """Return the links of a page that lead nowhere; addresses elsewhere aren't looked at."""
    missing = []
    for target in LINK.findall(prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page):
    assert not broken(page)


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n[a](#a-page) [b](nothing.md) [c](#nothing) [d](https://example.org) `[e](code.md)`\n")
    assert broken(page) == ["nothing.md", "#nothing"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_marker_is_broken(page):
    for line in page.read_text("utf-8").splitlines():
        assert not re.match(r"\s*-+\s*8\s*<", line) or SNIPPET.fullmatch(line), line


@pytest.mark.parametrize("page", [p for p in PAGES if SNIPPET.search(p.read_text("utf-8"))], ids=lambda page: page.name)
def test_what_is_included_is_there(page):
    for path in SNIPPET.findall(page.read_text("utf-8")):
        assert (ROOT / path).is_file(), path


def test_a_link_to_an_example_leads_to_its_section_on_the_site():
    """docs/links.py sends such links there, and only a strict build would see that a section is missing."""
    sections = anchors(DOCS / "examples.md")
    linked = {
        (page.name, name)
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"\]\(\.\./examples/(?:[\w/]*/)?(\w+)\.(?:py|yaml)\)", page.read_text("utf-8"))
    }
    assert len(linked) >= 10
    assert not [one for one in sorted(linked) if one[1] not in sections]


def listed(entry) -> list[str]:
    """Return the files of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [file for part in (entry.values() if isinstance(entry, dict) else entry) for file in listed(part)]


def test_the_navigation_lists_every_page_once():
    navigation = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(navigation) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
