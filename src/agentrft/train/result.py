"""Which checkpoint a training loop ends with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentrft.errors import StoreFault
from agentrft.train.checkpoint import Checkpoints
from agentrft.train.log import RunLog
from agentrft.train.plan import TrainResult


def result_of(
    checkpoints: Checkpoints,
    step: int,
    best_first: Iterable[int],
    validations: Sequence[tuple[int, float]],
    stopped: str | None,
    log: RunLog,
) -> TrainResult:
    """The best checkpoint that still verifies, and the one of `step`, the last.

    `best_first` are the validated steps, best one first; without any the last is the result. The log says when the best
    one is damaged. Raises StoreFault when nothing can be loaded.
    """
    ranked = [*best_first]
    last = checkpoints.at(step)
    best = checkpoints.first_good(ranked) or last
    if last is None or best is None:
        raise StoreFault(f"a checkpoint in {checkpoints.folder} was damaged while the job ran; resume the job")
    wanted = ranked[0] if ranked else step
    if best.step != wanted:
        log.notice(f"The checkpoint of step {wanted} is damaged; the result is that of step {best.step}.", "warn")
    return TrainResult(best=best, last=last, stopped=stopped, validations=validations)
