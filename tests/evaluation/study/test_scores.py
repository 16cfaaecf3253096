import itertools
import math

import numpy as np
import pytest

from fluxsr.evaluation.study import bradley_terry
from fluxsr.evaluation.study.scores import POINTS, Vote, score_votes


def test_of_two_systems_the_odds_are_the_wins():
    strengths = bradley_terry(np.array([[0.0, 15.0], [5.0, 0.0]]))
    np.testing.assert_allclose(strengths, [math.log(3) / 2, -math.log(3) / 2], atol=1e-10)


def test_of_many_the_expected_wins_are_the_wins():
    wins = np.random.default_rng(0).integers(1, 20, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    strengths = bradley_terry(wins)
    chance = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    np.testing.assert_allclose(((wins + wins.T) * chance).sum(1), wins.sum(1), rtol=1e-8)
    assert strengths.sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(bradley_terry(np.stack([wins, wins.T])), [strengths, bradley_terry(wins.T)])


def test_who_wins_everything_gets_a_finite_score():
    one_sided = bradley_terry(np.array([[0.0, 9.0], [0.0, 0.0]]))
    np.testing.assert_allclose(one_sided, [math.log(9.5 / 0.5) / 2, -math.log(9.5 / 0.5) / 2], atol=1e-9)
    # The third is only known over the second.
    for size, won, lost in ((3, 3.0, 1.0), (6, 1000.0, 0.5), (12, 1e4, 0.5)):
        chain = won * np.eye(size, k=1) + lost * np.eye(size, k=-1)
        np.testing.assert_allclose(np.diff(bradley_terry(chain)), [-math.log(won / lost)] * (size - 1), atol=1e-6)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    truth, hits = math.log(2) * POINTS / 2, []
    dice = np.random.default_rng(3)
    for _ in range(60):
        votes = [
            Vote(person, image, 0, 1, float(dice.random() < 2 / 3))
            for person, image in itertools.product(range(6), range(25))
        ]
        (first,) = (system for system in score_votes(["a", "b"], votes).systems if system.name == "a")
        hits.append(first.interval[0] <= truth <= first.interval[1])
    assert np.mean(hits) >= 0.9


def test_ties_and_counts_are_told_and_the_best_stands_first():
    votes = [Vote(0, 0, 0, 1, 0.0), Vote(0, 1, 1, 0, 1.0), Vote(0, 2, 0, 1, 1.0), Vote(1, 0, 1, 0, 0.5)]
    scores = score_votes(["a", "b"], votes, left_share=0.5)
    assert [(s.name, s.wins, s.ties, s.losses) for s in scores.systems] == [("b", 2, 1, 1), ("a", 1, 1, 2)]
    assert scores.systems[0].score == pytest.approx(math.log(2.5 / 1.5) * POINTS / 2)
    (pair,) = scores.pairs
    assert (pair.first, pair.second, pair.votes, pair.preferred) == ("a", "b", 4, 1.5 / 4)
    assert (scores.people, scores.images, scores.votes, scores.note) == (2, 3, 4, "")
    assert "| b | +44 |" in scores.to_markdown() and "4 votes of 2 people on 3 images" in scores.to_markdown()
    assert score_votes(["a", "b"], votes[:2]).note.startswith("a system won or lost every comparison")
    with pytest.raises(ValueError, match="no vote to count"):
        score_votes(["a", "b"], [])


def test_who_was_never_compared_has_no_score():
    votes = [Vote(0, image, 0, 2, float(image > 0)) for image in range(4)]
    scores = score_votes(["ours", "absent", "theirs"], votes)
    assert [(one.name, one.wins) for one in scores.systems] == [("ours", 3), ("theirs", 1)]
    assert scores.systems[0].score == pytest.approx(math.log(3) / 2 * POINTS)
    assert "absent" in scores.note and "absent" in scores.to_markdown()
    assert score_votes(["ours", "theirs"], [vote._replace(second=1) for vote in votes]).note == ""
