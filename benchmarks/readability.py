"""Measure how readable README, the pages and the docstrings are, and print their ten longest sentences.

python -m benchmarks.readability            # a table, then the ten worst sentences of each part
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LONG = 30  # words; a sentence above this is hard to read aloud
# A full stop after these does not end a sentence.
SHORT_FORMS = re.compile(r"\b(e\.g|i\.e|eq|eqs|et al|vs|cf|approx|Fig|no)\.", re.IGNORECASE)
END = re.compile(r"(?<=[.!?:])[)\"'*_]*\s+(?=[A-Z0-9*`\"'(\[_])")
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Shapes|Logs|Examples?|Note|Source):$")
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*): +(.*)$")
OPENING = re.compile(r"^(of|to|at|in|for|from|with|by|on|between|as|that|whose|which)\b", re.IGNORECASE)
ERROR = re.compile(r"(Error|Exception)$")  # its entry is a condition, "ValueError: For a wrong shape"
# Words that describe code as if it were a building, a card game or a conversation.
METAPHOR = re.compile(r"\b(house|rooms?|dealt|dealer|deals|dealing|hears?|heard|so-manieth|lives in)\b", re.IGNORECASE)


class Text(NamedTuple):
    """A part of the public text: where it is written, and its words without code."""

    place: str
    words: str


def sentences(text: str) -> list[str]:
    """Split plain text into sentences; a colon ends one, as an item of a list does."""
    text = SHORT_FORMS.sub(lambda match: match[0].replace(".", ""), " ".join(text.split()))
    return [part.strip() for part in END.split(text) if re.search(r"[A-Za-z]{2}", part)]


def words(sentence: str) -> list[str]:
    """Return the words of a sentence; an identifier, path or formula is one word."""
    return re.findall(r"[^\s]*[A-Za-z0-9][^\s]*", sentence)


def syllables(word: str) -> int:
    """Count groups of vowels, without a silent e at the end; at least one."""
    letters = re.sub(r"[^a-z]", "", word.lower())
    groups = len(re.findall(r"[aeiouy]+", letters))
    return max(1, groups - (letters.endswith("e") and not letters.endswith("le") and groups > 1))


def grade(found: list[str]) -> float:
    """Return the Flesch-Kincaid grade of sentences: years of school that a reader needs."""
    count = [word for sentence in found for word in words(sentence)]
    plain = [word for word in count if re.fullmatch(r"[A-Za-z'-]+[.,;:)]*", word)] or ["a"]
    return 0.39 * len(count) / max(1, len(found)) + 11.8 * sum(map(syllables, plain)) / len(plain) - 15.59


def _identifier(match: re.Match[str]) -> str:
    """Return code as one word, without the full stops and colons that would end a sentence."""
    code = next((group for group in match.groups() if group), "x")
    return "`" + re.sub(r"[\s.:]+", "_", code) + "`"


def page_parts(path: Path) -> list[Text]:
    """Return the paragraphs and list items of a Markdown page, without code, tables and included files."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->|<(svg|script|style)\b.*?</\1>|<[^>]+>", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)(\{[^}]*\})?", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`([^`\n]*)`", _identifier, text)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|\{|---)", line)]
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[*+-]|\d+\.)\s)", "\n".join(lines))
    name = path.relative_to(ROOT).as_posix()
    return [Text(name, re.sub(r"^\s*(?:[*+-]|\d+\.)\s+", "", block).strip(" *_")) for block in blocks if block.strip()]


def docstrings(path: Path) -> list[tuple[str, str]]:
    """Return ``(place, docstring)`` of a module and everything public in it."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    name = path.relative_to(ROOT).as_posix()
    return [
        (f"{name}:{getattr(node, 'lineno', 1)}", text)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]


def split_docstring(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the paragraphs of a docstring, and its entries ``(name, description)``, without examples and formulas."""
    text = re.sub(r"^( *)Examples?:\n(?:\1 +.*\n?|\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ *\.\. code.*?(?=^\S|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"::\n\n(?:[ ]+.*(?:\n|$)|\n(?=\n* ))+", ".\n\n", text)
    text = re.sub(r":\w+:`([^`]*)`|``(.*?)``|`([^`]*)`", _identifier, text)
    paragraphs: list[str] = []
    entries: list[tuple[str, str]] = []
    section = False
    for block in re.split(r"\n{2,}", text):
        lines = block.splitlines()
        if lines and SECTION.match(lines[0].strip()) and not lines[0].startswith(" "):
            section, lines = True, lines[1:]
        elif lines and not lines[0].startswith(" "):
            section = False
        if not section:
            paragraphs.append(" ".join(lines))
            continue
        for line in lines:
            match = ENTRY.match(line.strip()) if len(line) - len(line.lstrip()) <= 4 else None
            if match:
                entries.append((match[1], match[2]))
            elif entries:
                entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
            else:
                paragraphs.append(line.strip())
    return paragraphs, entries


def texts() -> tuple[dict[str, list[Text]], list[str]]:
    """Return the public text by part, and the argument descriptions that do not stand alone."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    parts = {
        "README": page_parts(ROOT / "README.md"),
        "pages": [part for page in [*pages, ROOT / "CONTRIBUTING.md"] for part in page_parts(page)],
        "docstrings": [],
    }
    dependent = []
    for path in sorted((ROOT / "fluxsr").rglob("*.py")):
        for place, text in docstrings(path):
            paragraphs, entries = split_docstring(text)
            parts["docstrings"] += [Text(place, paragraph) for paragraph in paragraphs]
            parts["docstrings"] += [Text(place, description) for _, description in entries]
            dependent += [
                f"{place} {name}: {text}" for name, text in entries if OPENING.match(text) and not ERROR.search(name)
            ]
    return parts, dependent


def main(worst: int = 10) -> None:
    """Print the figures of each part, then its longest sentences."""
    parts, dependent = texts()
    print("| part | sentences | words in a sentence | over 30 words | grade | metaphors |\n|---|---|---|---|---|---|")
    longest = {}
    for part, found in parts.items():
        placed = [(text.place, sentence) for text in found for sentence in sentences(text.words)]
        counts = [len(words(sentence)) for _, sentence in placed]
        share = sum(count > LONG for count in counts) / len(counts)
        metaphors = sum(len(METAPHOR.findall(sentence)) for _, sentence in placed)
        level = grade([sentence for _, sentence in placed])
        print(f"| {part} | {len(counts)} | {sum(counts) / len(counts):.1f} | {share:.1%} | {level:.1f} | {metaphors} |")
        longest[part] = sorted(placed, key=lambda one: -len(words(one[1])))[:worst]
        if "-v" in sys.argv:
            for place, sentence in placed:
                if len(words(sentence)) > LONG or METAPHOR.search(sentence):
                    print(f"    {place}: {sentence}")
    print(f"\nargument descriptions that do not stand alone: {len(dependent)}")
    for part, found in longest.items():
        print(f"\n{part}:")
        for place, sentence in found:
            print(f"{len(words(sentence)):4} {place}: {sentence}")
    if "-v" in sys.argv:
        print("\n".join(dependent))


if __name__ == "__main__":
    main()
