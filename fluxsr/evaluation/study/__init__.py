"""Makes a blind comparison by eyes: a page that people vote on, and the scores that follow from their votes."""

from fluxsr.evaluation.study.scores import PairScore, StudyScores, SystemScore, bradley_terry, merge_votes
from fluxsr.evaluation.study.voting_page import StudyFiles, write_study

__all__ = [
    "PairScore",
    "StudyFiles",
    "StudyScores",
    "SystemScore",
    "bradley_terry",
    "merge_votes",
    "write_study",
]
