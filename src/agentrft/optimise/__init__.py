"""Improves an agent without touching weights: prompt, tool descriptions, tool set, outputs, guardrails, examples.

Who proposes (`propose/`) is kept apart from who tests: `search` may be sloppy, because nothing is adopted before
`confirm` has measured it on items that no proposer and no search has seen. Read `run.py` first.
"""

from agentrft.optimise.arena import Arena, Play, Played, Tally
from agentrft.optimise.edit import Edit, edited
from agentrft.optimise.plan import OptimisePlan, Split, split_items
from agentrft.optimise.run import Outcome, optimise

__all__ = [
    "Arena",
    "Edit",
    "OptimisePlan",
    "Outcome",
    "Play",
    "Played",
    "Split",
    "Tally",
    "edited",
    "optimise",
    "split_items",
]
