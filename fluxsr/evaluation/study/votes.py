"""Reads several people's files of votes and merges them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxsr.evaluation.study.scores import StudyScores, Vote, score_votes

FORMAT = 1
SANITY = "sanity"
_OUTCOMES = {"left": 1.0, "tie": 0.5, "right": 0.0}


def merge_votes(files: Sequence[str | Path], key: str | Path, seed: int = 0) -> StudyScores:
    """Return the systems' scores, computed from people's votes.

    Args:
        files: Files that people saved on the page. If there are several from one person, the one with the most votes counts.
        key: The file that :func:`fluxsr.evaluation.study.write_study` wrote beside the page; it knows the systems' names.
        seed: Seed of the bootstrap.

    Returns:
        Bradley-Terry scores with intervals. Who failed half of the sanity pairs or more is left out.

    Raises:
        ValueError: If a file can't be read, is something else or of another study, or there is no vote.
    """
    study = _read(key, "key", ("study", "systems", "images"))
    codes: dict[str, str] = study["systems"]
    people: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        content = _read(file, "votes", ("study", "participant", "votes"))
        if content["study"] != study["study"]:
            raise ValueError(f"{file} is of another study than {key}: {content['study']} instead of {study['study']}")
        if not isinstance(content["votes"], list) or not isinstance(content["participant"], str):
            raise ValueError(f"{file} is not the votes of a study")
        for vote in content["votes"]:
            _check(vote, {*codes, SANITY}, len(study["images"]), file)
        people[content["participant"]] = max(people.get(content["participant"], []), content["votes"], key=len)
    if not people:
        raise ValueError("give the files that people saved on the page")
    attentive = [votes for votes in people.values() if _passes(votes)]
    numbers = {code: number for number, code in enumerate(codes)}
    counted = [(person, vote) for person, votes in enumerate(attentive) for vote in votes if not _is_sanity(vote)]
    known = [
        Vote(person, vote["image"], numbers[vote["left"]], numbers[vote["right"]], _OUTCOMES[vote["choice"]])
        for person, vote in counted
    ]
    sides = [vote["choice"] for _, vote in counted if vote["choice"] != "tie"]
    left_share = sides.count("left") / len(sides) if sides else 0.5
    return score_votes(list(codes.values()), known, left_share, len(people) - len(attentive), seed)


def _is_sanity(vote: dict[str, Any]) -> bool:
    return SANITY in (vote["left"], vote["right"])


def _passes(votes: Sequence[dict[str, Any]]) -> bool:
    asked = [vote for vote in votes if _is_sanity(vote)]
    right = sum(vote["choice"] == ("right" if vote["left"] == SANITY else "left") for vote in asked)
    return not asked or right > len(asked) / 2


def _check(vote: Any, systems: set[str], images: int, file: str | Path) -> None:
    right = (
        isinstance(vote, dict)
        and type(vote.get("image")) is int
        and 0 <= vote["image"] < images
        and {vote.get("left"), vote.get("right")} <= systems
        and vote["left"] != vote["right"]
        and vote.get("choice") in _OUTCOMES
    )
    if not right:
        raise ValueError(f"{file} holds a vote that the page can't have saved: {vote!r}")


def _read(path: str | Path, kind: str, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: give the {kind} of a study") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not set(keys) <= content.keys():
        raise ValueError(f"{path} is not the {kind} of a study")
    return content
