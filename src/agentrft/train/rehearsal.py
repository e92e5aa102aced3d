"""When a supervised stage has taught enough: by what its checkpoints play, not by the loss of demonstrations.

Reinforcement needs replies that can be read and items that are sometimes solved. Supervised training beyond that raises
the success of one try and takes away what reinforcement can find (arXiv:2606.18487); its loss says neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.protocols import Grader
from agentrft.rollout import Agent
from agentrft.train.checkpoint import checkpoint_name
from agentrft.train.evaluate import EvalPlan, evaluate
from agentrft.train.log import RunLog
from agentrft.train.outage import MAX_VALIDATION_FAULT_FRAC, check_faults
from agentrft.types import Item


@dataclass(frozen=True, slots=True)
class Standing:
    """What a checkpoint's episodes came to."""

    unsolved_frac: float
    """Items that none of their K graded episodes solved: 1 − pass@K."""
    readable_frac: float
    """Replies that could be read as a call or an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Plays the validation items with the weights as they are, and says whether that is enough."""

    run: str
    """Job id."""
    agent: Agent
    grader: Grader
    items: Sequence[Item]
    samples: int
    """Episodes per item, K."""
    pass_threshold: float
    pass_at_k: float
    """Enough is when so many of the items are solved by one of their episodes at least …"""
    readable: float
    """… and so many of the replies can be read."""

    async def play(self, step: int, log: RunLog) -> Standing:
        """Raises BoundaryError when too many episodes are faults, UserError when none can be graded."""
        plan = EvalPlan(
            run=self.run,
            split="validation",
            stage=checkpoint_name(step),
            items=self.items,
            samples=self.samples,
            step=step,
            pass_threshold=self.pass_threshold,
        )
        evaluation = await evaluate(plan, self.agent, self.grader, log)
        check_faults(evaluation.groups, most=MAX_VALIDATION_FAULT_FRAC)
        graded = [successes_K for successes_K in evaluation.success_I_K if successes_K]
        return Standing(
            unsolved_frac=sum(not any(successes_K) for successes_K in graded) / len(graded),
            readable_frac=evaluation.interval(evaluation.readable_I_K).mean,
        )

    def is_enough(self, standing: Standing) -> bool:
        """Whether reinforcement can begin from there."""
        return standing.readable_frac >= self.readable and standing.unsolved_frac <= 1 - self.pass_at_k
