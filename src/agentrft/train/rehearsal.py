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

    pass_at_k: float
    """Share of the items that one of their K graded episodes solved."""
    readable: float
    """Share of the replies that could be read as a call or an answer."""

    @property
    def shortfall(self) -> float:
        """The shares of unsolved items and of unreadable replies together: the less, the better the checkpoint."""
        return (1 - self.pass_at_k) + (1 - self.readable)


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
        standing = Standing(
            pass_at_k=sum(any(successes_K) for successes_K in graded) / len(graded),
            readable=evaluation.interval(evaluation.readable_I_K).mean,
        )
        log.measured(step, {"valid_pass_at_k": standing.pass_at_k, "valid_readable_frac": standing.readable})
        return standing

    def is_enough(self, standing: Standing) -> bool:
        """Whether reinforcement can begin from there."""
        return standing.readable >= self.readable and standing.pass_at_k >= self.pass_at_k
