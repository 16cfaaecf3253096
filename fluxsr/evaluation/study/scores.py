"""Computes Bradley-Terry scores of systems compared in pairs, with bootstrap intervals over people and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

    Source: Hunter 2004, "MM algorithms for generalized Bradley-Terry models", eq. 3.
    """
    size = wins.shape[-1]
    flat = wins.reshape(-1, size, size).astype(np.float64)
    undefined = ~_is_connected(flat)
    flat = flat + undefined[:, None, None] * (0.5 * (1 - np.eye(size)))
    games = flat + flat.swapaxes(1, 2)
    total = flat.sum(axis=2)
    strength = np.ones((len(flat), size))
    for _ in range(10_000):
        shares = games / (strength[:, :, None] + strength[:, None, :])
        new = total / shares.sum(axis=2)
        new /= np.exp(np.log(new).mean(axis=1, keepdims=True))
        change = np.abs(np.log(new / strength)).max(initial=0)
        strength = new
        if change < 1e-12:
            break
    return np.log(strength).reshape(wins.shape[:-1])


def _is_connected(wins: Numbers) -> NDArray[np.bool_]:
    """Say of each ``(n, n)`` whether every system has beaten every other, directly or over others in between."""
    size = wins.shape[-1]
    reached = (wins > 0) | np.eye(size, dtype=bool)
    for _ in range(max(1, size.bit_length())):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return np.asarray(reached.all(axis=(1, 2)))


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
    compared = sorted({number for vote in votes for number in (vote.first, vote.second)})
    if len(compared) < len(names):
        order = {number: place for place, number in enumerate(compared)}
        known = [vote._replace(first=order[vote.first], second=order[vote.second]) for vote in votes]
        scores = score_votes([names[number] for number in compared], known, left_share, left_out, seed)
        absent = f"in no comparison, so without a score: {', '.join(n for i, n in enumerate(names) if i not in order)}"
        return replace(scores, note="; ".join(filter(None, (absent, scores.note))))
    people, persons = np.unique([vote.person for vote in votes], return_inverse=True)
    images, pictures = np.unique([vote.image for vote in votes], return_inverse=True)
    first, second = (np.array([vote[index] for vote in votes]) for index in (2, 3))
    outcome = np.array([vote.outcome for vote in votes])
    size = len(names)

    def won(weights: Numbers) -> Numbers:
        """``(R, votes)`` weights to ``(R, n, n)`` wins."""
        table = np.zeros((len(weights), size, size))
        for index in range(len(votes)):
            table[:, first[index], second[index]] += weights[:, index] * outcome[index]
            table[:, second[index], first[index]] += weights[:, index] * (1 - outcome[index])
        return table

    generator = np.random.default_rng(seed)
    # People and images are both drawn again, since other people would have judged other images: Owen's pigeonhole bootstrap.
    weights = np.ones((RESAMPLES, len(votes)))
    for groups, members in ((people, persons), (images, pictures)):
        if len(groups) > 1:
            weights *= generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), RESAMPLES)[:, members]
    weights = weights[weights.sum(axis=1) > 0]
    table, tables = won(np.ones((1, len(votes))))[0], won(weights)
    points = bradley_terry(table) * POINTS
    low, high = np.quantile(bradley_terry(tables) * POINTS, [0.025, 0.975], axis=0)

    def count(number: int, value: float) -> int:
        return int(((first == number) & (outcome == value)).sum() + ((second == number) & (outcome == 1 - value)).sum())

    systems = [
        SystemScore(
            name,
            float(points[number]),
            (float(low[number]), float(high[number])),
            count(number, 1.0),
            count(number, 0.5),
            count(number, 0.0),
        )
        for number, name in enumerate(names)
    ]
    pairs = []
    for one in range(size):
        for other in range(one + 1, size):
            number = int(table[one, other] + table[other, one])
            if number:
                games = tables[:, one, other] + tables[:, other, one]
                shares = tables[games > 0, one, other] / games[games > 0]
                ends = np.quantile(shares, [0.025, 0.975])
                share = float(table[one, other] / number)
                pairs.append(PairScore(names[one], names[other], share, (float(ends[0]), float(ends[1])), number))
    note = ""
    if not _is_connected(table[None])[0]:
        note = "a system won or lost every comparison, so one tie was added to each pair to keep the scores finite"
    ordered = tuple(sorted(systems, key=lambda system: -system.score))
    return StudyScores(ordered, tuple(pairs), len(people), left_out, len(votes), len(images), left_share, note)
