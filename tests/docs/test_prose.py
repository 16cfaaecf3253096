"""The public text is readable: README is short, sentences are, and descriptions stand alone."""

from __future__ import annotations

import ast
import re

import pytest

from benchmarks import readability
from tests.docs.pages import FENCE, PAGES, ROOT

PARTS, DEPENDENT = readability.texts()
# The share of sentences above 30 words that a part may have. CHANGELOG is no part: it lists things.
LONGEST_SHARE = {"README": 0.0, "pages": 0.005, "docstrings": 0.005}
CODE = re.compile(r"`[^`]*`")
END = re.compile(r"\w[.!?][)\"]* +(?=[A-Z][a-z])")
SHORT_FORMS = re.compile(r"\b(e\.g|i\.e|et al|eq|vs)\. ")


@pytest.mark.parametrize("part", LONGEST_SHARE)
def test_few_sentences_are_long(part):
    found = [sentence for text in PARTS[part] for sentence in readability.sentences(text.words)]
    long = [sentence for sentence in found if len(readability.words(sentence)) > readability.LONG]
    assert len(found) >= 15
    assert len(long) <= LONGEST_SHARE[part] * len(found), long


def test_code_is_not_described_as_a_building_or_a_game():
    texts = [text for found in PARTS.values() for text in found]
    assert not [text for text in texts if readability.METAPHOR.search(text.words)]


def test_every_description_of_an_argument_stands_alone():
    assert not DEPENDENT


def test_a_page_of_github_holds_the_readme():
    assert 60 <= len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 80


def test_every_module_says_with_a_verb_what_it_does():
    for path in sorted((ROOT / "fluxsr").rglob("*.py")):
        first = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split(" ")[0].rstrip(",")
        assert re.fullmatch(r"[A-Z][a-z]+s", first), f"{path.relative_to(ROOT)} begins with {first!r}"


def paragraphs(text: str) -> list[str]:
    """Return the lines of a page that are prose."""
    lines = FENCE.sub("", text).splitlines()
    return [line for line in lines if not re.match(r"\s*(\||#|<|!\[|\*\*`|\d+\. )", line)]


def crowded(text: str) -> list[str]:
    """Return the lines of a page that hold more than one sentence; what stands in brackets belongs to its sentence."""
    found = []
    for line in paragraphs(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", CODE.sub("x", line))
        plain = re.sub(r"\([^()]*\)", "", SHORT_FORMS.sub("x ", plain))
        if END.search(plain):
            found.append(line)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_line_holds_one_sentence(page):
    assert not crowded(page.read_text("utf-8"))


def test_what_is_wrong_is_found():
    assert crowded("One sentence. Another one.\n") and not crowded("One (a note. It is long) sentence.\n")
    assert readability.OPENING.match("of the noise") and not readability.OPENING.match("Seed of the noise")
    assert (
        readability.METAPHOR.search("the sampler deals")
        and len(readability.sentences("One, two. Three is `four`.")) == 2
    )
    assert [entry[0] for entry in readability.split_docstring("Do.\n\nArgs:\n    seed: of it.\n")[1]] == ["seed"]
