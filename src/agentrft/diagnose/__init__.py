"""Diagnosis: how well an agent does on a job's items, why it fails, and whether reinforcement can help.

Read `baseline.py` (episodes), `figures.py` (numbers), `failures.py` (classes) and `verdict.py` (go or no-go);
`document.py` puts them together. `turn_value.py` is about one turn of one episode.
"""

from agentrft.diagnose.baseline import Baseline, BaselinePlan, is_finished, play
from agentrft.diagnose.document import SCHEMA, Diagnosis, diagnose
from agentrft.diagnose.estimate import Estimate, Price, estimate
from agentrft.diagnose.repeat import Agreement, Repeatability, agree, grade_again
from agentrft.diagnose.turn_value import Choice, Side, TurnValue, value_turn
from agentrft.diagnose.verdict import Bounds, Ruling

__all__ = [
    "SCHEMA",
    "Agreement",
    "Baseline",
    "BaselinePlan",
    "Bounds",
    "Choice",
    "Diagnosis",
    "Estimate",
    "Price",
    "Repeatability",
    "Ruling",
    "Side",
    "TurnValue",
    "agree",
    "diagnose",
    "estimate",
    "grade_again",
    "is_finished",
    "play",
    "value_turn",
]
