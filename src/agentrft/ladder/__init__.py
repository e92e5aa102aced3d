"""The ladder: a base model, then supervised, then reinforcement fine-tuning, each measured on the same held-out items.

`climb` runs it, piece by piece, so that an interrupted one goes on where it was; `result` is what it found.
"""

from agentrft.ladder.climb import LadderPlan, climb
from agentrft.ladder.example import find_example
from agentrft.ladder.result import LadderResult

__all__ = ["LadderPlan", "LadderResult", "climb", "find_example"]
