"""What a loop that validates by its loss (supervised, preferences) keeps beside the weights, and goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentrft.protocols import Learner
from agentrft.train.checkpoint import Checkpoint, Checkpoints
from agentrft.train.log import RunLog


@dataclass(frozen=True, slots=True, kw_only=True)
class LossState:
    """What a resume needs beside the weights and the optimiser."""

    step: int = 0
    """Steps done; what is learnt from next follows from it."""
    validations: tuple[tuple[int, float], ...] = ()
    """(step, loss on what is held out, or another figure that falls), in order."""
    is_enough: bool = False
    """The last validation came to what training was for."""

    @property
    def best_step(self) -> int:
        """The earliest step with the lowest figure; the last step where that is enough, or nothing was validated."""
        if self.is_enough or not self.validations:
            return self.step
        return min(self.validations, key=lambda point: point[1])[0]

    @property
    def is_validated(self) -> bool:
        """Whether the last validation is that of the last step."""
        return bool(self.validations) and self.validations[-1][0] == self.step

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LossState:
        """What `asdict` made, after JSON."""
        validations = tuple((step, loss) for step, loss in document["validations"])
        return cls(step=document["step"], validations=validations, is_enough=document.get("is_enough", False))


class Saves:
    """The checkpoints of one job, each with its state."""

    def __init__(self, checkpoints: Checkpoints, learner: Learner, log: RunLog, *, metric: str) -> None:
        """`metric` is the name of the validation's figure."""
        self._checkpoints = checkpoints
        self._learner = learner
        self._log = log
        self._metric = metric

    async def resume(self) -> LossState:
        """The state of the newest good checkpoint, its weights loaded; that before step 1 where there is none."""
        newest = self._checkpoints.newest()
        if newest is None:
            return LossState()
        await self._learner.load(newest.path)
        self._log.notice(f"Resuming after step {newest.step}.")
        state = LossState.from_json(newest.state)
        self._tell(newest, state)  # a kill may have come between saving it and telling
        return state

    async def save(self, state: LossState) -> None:
        """A checkpoint of the state; the best one so far stays beside it."""
        keep = {state.best_step}
        checkpoint = await self._checkpoints.save(self._learner, state.step, asdict(state), keep_steps=keep)
        self._tell(checkpoint, state)

    def _tell(self, checkpoint: Checkpoint, state: LossState) -> None:
        """List the checkpoint; telling the same one again changes nothing."""
        validated = dict(state.validations)
        metrics = {self._metric: validated[state.step]} if state.step in validated else {}
        self._log.checkpoint(checkpoint, metrics, is_best=state.best_step == state.step)
