"""Waiting until what failed outside works again: looked for with one episode, or with one write, at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentrft.build import Live
from agentrft.errors import BoundaryError, StoreFault
from agentrft.rollout import Rollout, Seat, run_groups
from agentrft.train.outage import check_faults
from agentrft.types import Item

WAITS_S = (1.0, 2.0, 4.0, 5.0)
"""Between looks; the last one goes on. Short enough that a job runs again within 10 s of the recovery."""
MOST_BARREN = 3
"""So often a job may go on and fail again without a step between before the waits grow, to `LONGEST_S` at most."""
LONGEST_S = 60.0
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
_TRIAL_BYTES = 1 << 20


def as_fault(error: BoundaryError | OSError) -> BoundaryError:
    """The fault that an error is; raises an OSError again that is none of the disk's."""
    if isinstance(error, BoundaryError):
        return error
    if error.errno not in _DISK:
        raise error
    fault = StoreFault(f"the disk refused: {error}; free disk space, and the job goes on by itself")
    fault.__cause__ = error
    return fault


def waits_s(barren: int) -> Iterator[float]:
    """Seconds to wait before each look, without end; `barren` resumptions in a row have come to nothing."""
    for wait_s in WAITS_S:
        yield min(wait_s * 2 ** max(barren - MOST_BARREN, 0), LONGEST_S)
    while True:
        yield min(WAITS_S[-1] * 2 ** max(barren - MOST_BARREN, 0), LONGEST_S)


async def play_one(live: Live, job_id: str, items: Sequence[Item], look: int) -> None:
    """Play and grade one episode, which nobody keeps; raises BoundaryError while it is a fault.

    Its ids are those of no episode of the job, so that a tool's server cannot take it for one.
    """
    seat = Seat(index=0, item=items[look % len(items)])
    rollout = Rollout(run=f"{job_id}/outage", step=look, members=1, seats=[seat])
    check_faults(await run_groups(rollout, live.agent, live.graded()))


def write_some(folder: Path) -> None:
    """Write a megabyte and take it away again; raises StoreFault while the disk refuses."""
    trial = folder / ".tmp-trial"
    try:
        with trial.open("wb") as file:
            file.write(bytes(_TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreFault(f"could not write into {folder}: {error}") from error
    finally:
        trial.unlink(missing_ok=True)
