"""Runs ``fluxsr study``: it makes a page for a blind comparison by people, and computes scores from their votes."""

from __future__ import annotations

from fluxsr.cli._support.command import Command

PAGE = Command(
    "study",
    ("fluxsr.evaluation.study.voting_page:write_study",),
    usage="NAME=DIR NAME=DIR ... --output FILE [options]\n       fluxsr study merge VOTES.json ... --key FILE [--seed N]",
    examples="""
    fluxsr study ours=out/ theirs=other/ --inputs photos/ --output study.html
    fluxsr study merge votes-*.json --key study.key.json
    """,
    positional="systems",
    shown={"systems": "NAME=DIR", "output": "FILE", "inputs": "DIR", "title": "TEXT", "question": "TEXT"},
)
SCORES = Command(
    "study merge",
    ("fluxsr.evaluation.study.scores:merge_votes",),
    examples="fluxsr study merge votes-*.json --key study.key.json",
    positional="files",
    shown={"files": "VOTES.json", "key": "FILE"},
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    if arguments[:1] == ["merge"]:
        options = SCORES.parse(arguments[1:])
        from fluxsr.evaluation.study import merge_votes

        print(merge_votes(**options).to_markdown())
        return
    options = PAGE.parse(arguments)
    from fluxsr.evaluation.study import write_study

    study = write_study(**options)
    print(f"page for people: {study.page.resolve().as_uri()}\nkey, which stays with you: {study.key}")
