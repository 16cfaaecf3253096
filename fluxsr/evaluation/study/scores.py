"""Computes Bradley-Terry scores of systems compared in pairs, with bootstrap intervals over people and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

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
    """The score of one system.

    Attributes:
        name: The system's name.
        score: Points above the mean of all; 400 points are odds of 10 to 1.
        interval: The 95 % bootstrap interval of ``score``.
        wins: Comparisons in which it was preferred.
        ties: Comparisons without a difference.
        losses: Comparisons in which the other was preferred.
    """

    name: str
    score: float
    interval: tuple[float, float]
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class PairScore:
    """The votes between two systems.

    Attributes:
        first: A system's name.
        second: The other's name.
        preferred: Share of the votes for the first, a tie counting half.
        interval: The 95 % bootstrap interval of ``preferred``.
        votes: Number of comparisons.
    """

    first: str
    second: str
    preferred: float
    interval: tuple[float, float]
    votes: int


@dataclass(frozen=True)
class StudyScores:
    """The result of a study.

    Attributes:
        systems: Those that were compared, best first.
        pairs: Each pair that was compared.
        people: Number of people whose votes count.
        left_out: Number of people who preferred the damaged picture of a sanity pair, or saw no difference there, in half of
            the cases or more.
        votes: Number of votes that count, sanity pairs aside.
        images: Number of images that were judged.
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
    """Return the scores of votes.

    Args:
        names: The systems' names, by number.
        votes: The votes that count.
        left_share: See :class:`StudyScores`.
        left_out: See :class:`StudyScores`.
        seed: Seed of the resampling.

    Raises:
        ValueError: Without votes.
    """
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
