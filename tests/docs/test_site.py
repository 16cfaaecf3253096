"""The site builds without a warning and asks nothing of another server."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
import yaml

import fluxsr
from tests.docs.pages import DOCS, ROOT, SNIPPET


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="MkDocs is not installed: pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?(?:https?:)?//[^\s\"'>]+", text)
        fetched += re.findall(
            r"<link[^>]+rel=[\"']?(?:stylesheet|preconnect|preload)[^>]+href=[\"']?(?:https?:)?//", text
        )
        assert not fetched, page


@pytest.mark.slow
def test_what_is_included_is_on_the_page(site):
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"<[^>]+>", "", (site / page.relative_to(DOCS).with_suffix(".html")).read_text("utf-8"))
        text = "".join(html.unescape(text).split())
        for path in SNIPPET.findall(page.read_text("utf-8")):
            if not path.endswith(".md"):
                assert "".join((ROOT / path).read_text("utf-8").split()) in text, f"{page.name}: {path}"


@pytest.mark.slow
def test_docstrings_are_rendered(site):
    for page in (site / "api").glob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r":(?:class|func|meth|mod|attr|data|exc):", text), page
        assert "&gt;&gt;&gt;" not in re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL), page


@pytest.mark.slow
@pytest.mark.parametrize(
    "package",
    [
        "flows",
        "losses",
        "models",
        "training",
        "training.callbacks",
        "images",
        "data",
        "inference",
        "evaluation",
        "planning",
    ],
)
def test_every_public_name_is_in_the_reference(site, package):
    text = (site / "api" / f"{package.split('.')[0]}.html").read_text("utf-8")
    public = import_module(f"fluxsr.{package}").__all__
    assert not [name for name in public if f'id="fluxsr.{package}.{name}"' not in text]


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == fluxsr.__version__
    assert {"2502.01993", "2605.12377"} == {r["url"].rsplit("/", 1)[1] for r in citation["references"]}
