"""Merges people's votes into Bradley-Terry scores of systems compared in pairs, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxsr.evaluation.document import read_json

Numbers = NDArray[np.float64]

FORMAT = 1
SANITY = "sanity"
_OUTCOMES = {"left": 1.0, "tie": 0.5, "right": 0.0}
RESAMPLES = 1000
# Points of the scale that chess players know: 400 of them are odds of 10 to 1.
POINTS = 400 / np.log(10)


class Vote(NamedTuple):
    """One comparison: who judged which image, the systems by number, and how it ended for the first: 1, 0 or a tie's 0.5."""

    person: int
    image: int
    first: int
    second: int
    outcome: float


@dataclass(frozen=True)
class SystemScore:
    """The score of one system: points above the mean of all (400 are odds of 10 to 1), with its 95 % bootstrap interval."""

    name: str
    score: float
    interval: tuple[float, float]
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class PairScore:
    """The votes between two systems: the share that preferred the first, a tie counting half, with its 95 % interval."""

    first: str
    second: str
    preferred: float
    interval: tuple[float, float]
    votes: int


@dataclass(frozen=True)
class StudyScores:
    """The result of a study, best systems first.

    Attributes:
        people: Number of people whose votes count.
        left_out: Number of people who preferred the damaged picture of a sanity pair, or saw no difference there, in half of
            the cases or more.
        votes: Number of votes that count, sanity pairs aside.
        left_share: Share of the left side among the votes that were no ties; far from 0.5 it hints at inattention.
        note: Caveat that a reader must know; empty if there is none.
    """

    systems: tuple[SystemScore, ...]
    pairs: tuple[PairScore, ...]
    people: int
    left_out: int
    votes: int
    images: int
    left_share: float
    note: str = ""

    def to_markdown(self) -> str:
        """Return the scores as tables."""
        people = f"{self.people} {'person' if self.people == 1 else 'people'}"
        lines = [f"{self.votes} votes of {people} on {self.images} images, {self.left_out} left out.", ""]
        lines += ["| system | score | 95 % interval | wins | ties | losses |", "|---|---|---|---|---|---|"]
        for one in self.systems:
            low, high = one.interval
            lines.append(
                f"| {one.name} | {one.score:+.0f} | {low:+.0f} to {high:+.0f} | {one.wins} | {one.ties} | {one.losses} |"
            )
        lines += ["", "| pair | first preferred | 95 % interval | votes |", "|---|---|---|---|"]
        for pair in self.pairs:
            low, high = pair.interval
            lines.append(
                f"| {pair.first} against {pair.second} | {pair.preferred:.0%} | {low:.0%} to {high:.0%} | {pair.votes} |"
            )
        lines += ["", "Bradley-Terry scores: points above the mean, 400 are odds of 10 to 1; a tie is half a win."]
        return "\n".join([*lines, *([f"Note: {self.note}."] if self.note else []), ""])


def merge_votes(files: Sequence[str | Path], key: str | Path, seed: int = 0) -> StudyScores:
    """Return the systems' scores, computed from people's votes.

    Args:
        files: Files that people saved on the page. If there are several from one person, the one with the most votes counts.
        key: The file that :func:`fluxsr.evaluation.study.write_study` wrote beside the page; it knows the systems' names.
        seed: Seed of the bootstrap.

    Returns:
        Bradley-Terry scores with intervals. Who failed half of the sanity pairs or more is left out.

    Raises:
        ValueError: If a file is something else or of another study, or there is no vote.
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
    content = read_json(path, f": give the {kind} of a study")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not set(keys) <= content.keys():
        raise ValueError(f"{path} is not the {kind} of a study")
    return content


def bradley_terry(wins: Numbers) -> Numbers:
    """Return the maximum-likelihood strengths of the Bradley-Terry model, ``log`` odds with a mean of 0.

    ``P(i beats j) = exp(s_i) / (exp(s_i) + exp(s_j))``. Of two systems ``s_1 - s_2 = log(wins_1 / wins_2)``.

    Args:
        wins: ``(..., n, n)``; how often the row's system beat the column's, a tie being half a win for each. Where a system
            won or lost everything its strength would be infinite: then, and only then, one tie is added to each pair.

    Returns:
        ``(..., n)`` strengths.
    """
    size = wins.shape[-1]
    wins = wins + ~_is_connected(wins)[..., None, None] * (0.5 * (1 - np.eye(size)))
    games = wins + wins.swapaxes(-1, -2)
    strength = np.zeros(wins.shape[:-1])
    for _ in range(200):
        chance = 1 / (1 + np.exp(strength[..., None, :] - strength[..., :, None]))
        slope = (wins - games * chance).sum(axis=-1)
        bend = games * chance * (1 - chance)
        # The likelihood doesn't change with the mean, which is 0: the matrix of ones keeps it there.
        curvature = np.eye(size) * bend.sum(axis=-1)[..., None] - bend + np.ones((size, size))
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        # Newton's step, damped as the logistic function wants it: it never overshoots, and near the end it is whole.
        length = np.maximum(np.ptp(step, axis=-1, keepdims=True), 1e-12)
        strength = strength + step * np.log1p(length) / length
        if length.max(initial=0) < 1e-10:
            break
    return strength


def _is_connected(wins: Numbers) -> NDArray[np.bool_]:
    """Say of each ``(n, n)`` whether every system has beaten every other, directly or over others in between."""
    size = wins.shape[-1]
    reached = (wins > 0) | np.eye(size, dtype=bool)
    for _ in range(size.bit_length()):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return np.asarray(reached.all(axis=(-1, -2)))


def score_votes(
    names: Sequence[str], votes: Sequence[Vote], left_share: float = 0.5, left_out: int = 0, seed: int = 0
) -> StudyScores:
    """Return the scores of the votes that count, between systems that have these names by number."""
    if not votes:
        raise ValueError("there is no vote to count" + (": everybody failed the sanity pairs" if left_out else ""))
    columns = [np.array(column) for column in zip(*votes, strict=True)]
    compared, numbers = np.unique(columns[2:4], return_inverse=True)
    first, second = numbers.reshape(2, -1)
    outcome, known = columns[4], [names[number] for number in compared]
    # People and images are both drawn again, since other people would have judged other images: Owen's pigeonhole bootstrap.
    generator = np.random.default_rng(seed)
    weights, groups = np.ones((RESAMPLES, len(votes))), []
    for column in columns[:2]:
        members, places = np.unique(column, return_inverse=True)
        groups.append(len(members))
        if len(members) > 1:
            equal = np.full(len(members), 1 / len(members))
            weights *= generator.multinomial(len(members), equal, RESAMPLES)[:, places]
    weights = np.concatenate([np.ones((1, len(votes))), weights[weights.sum(axis=1) > 0]])
    tables = np.zeros((len(weights), len(known), len(known)))  # of the votes themselves, and of each resample
    for index in range(len(votes)):
        tables[:, first[index], second[index]] += weights[:, index] * outcome[index]
        tables[:, second[index], first[index]] += weights[:, index] * (1 - outcome[index])
    points = bradley_terry(tables) * POINTS

    systems = []
    for number, name in enumerate(known):
        of_its = np.concatenate([outcome[first == number], 1 - outcome[second == number]])
        counts = [int((of_its == value).sum()) for value in (1.0, 0.5, 0.0)]
        systems.append(SystemScore(name, float(points[0, number]), _ends(points[1:, number]), *counts))
    pairs = []
    for one, other in combinations(range(len(known)), 2):
        games = tables[:, one, other] + tables[:, other, one]
        if games[0]:
            shares = tables[games > 0, one, other] / games[games > 0]
            pairs.append(PairScore(known[one], known[other], float(shares[0]), _ends(shares[1:]), int(games[0])))
    notes = []
    if len(known) < len(names):
        notes.append(f"in no comparison, so without a score: {', '.join(name for name in names if name not in known)}")
    if not _is_connected(tables[0]):
        notes.append(
            "a system won or lost every comparison, so one tie was added to each pair to keep the scores finite"
        )
    ordered = tuple(sorted(systems, key=lambda system: -system.score))
    return StudyScores(ordered, tuple(pairs), groups[0], left_out, len(votes), groups[1], left_share, "; ".join(notes))


def _ends(values: Numbers) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
