"""What a worker does with its job: checks or trains it, through pauses and outages, to a status that says how it is.

The engine is loaded once. Tools and graders are opened anew after each outage, so that nothing of it (connections that
hang, servers that are left alone) lasts longer than it does.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack, suppress

from agentrft import build
from agentrft.errors import BoundaryError, EngineFault, StoreFault, ToolFault, UserError
from agentrft.jobs.check import check_job
from agentrft.jobs.models import Weights, find_weights
from agentrft.jobs.results import write_result_file
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import StoredJob
from agentrft.jobs.spec import JobSpec
from agentrft.net.policy import NetworkPolicy
from agentrft.runtime.lease import Lease, Wanted
from agentrft.runtime.outage import MOST_BARREN, as_fault, play_one, waits_s, write_some
from agentrft.runtime.training import Outcome, note_stop, train_job
from agentrft.train.log import Progress, StepDone
from agentrft.train.stop import Stop, Stopped

_UNREACHABLE = frozenset({"tool_unreachable", "grader_unreachable"})
"""Codes of errors that are an outage when the job has been checked before."""
_SETTLE_S = 20.0
"""How long a final word is tried again while the store refuses."""


async def check(job: StoredJob, lease: Lease, stop: Stop, network: NetworkPolicy | None) -> None:
    """The checks that a create call had no time for; the job is `queued` or `failed` after them."""
    checking = asyncio.to_thread(check_job, job.spec, job.base_dir, start_from=job.start_from, network=network)
    try:
        report = await stop.cut(checking)
        report.raise_problems()
    except UserError as error:
        fail(lease, error)
        return
    except Stopped:
        return
    for warning in report.warnings:
        lease.fenced.add_event(job.id, warning, level="warn")
    lease.fenced.set_job_status(job.id, "queued")


def fail(lease: Lease, error: UserError) -> None:
    """The job is `failed`, and says why; what it had learnt until then is in its result file."""
    with suppress(StoreFault):
        write_result_file(lease.fenced, lease.job_id)
    failure = {"code": error.code, "message": error.message, "param": error.param}
    lease.fenced.set_job_status(lease.job_id, "failed", error=failure)


class Training:
    """One life of a training job."""

    def __init__(
        self,
        job: StoredJob,
        lease: Lease,
        stop: Stop,
        *,
        network: NetworkPolicy | None = None,
        load: build.LoadEngine = build.load_engine,
    ) -> None:
        self._job = job
        self._lease = lease
        self._stop = stop
        self._network = network
        self._load = load
        self._engine: build.Engine | None = None
        self._steps = 0
        self._barren = 0

    async def run(self) -> None:
        """To the job's end, or until the stop is asked for; raises only what is a bug, or a store that stays away."""
        try:
            while not await self._attempt():
                pass
        except UserError as error:
            fail(self._lease, error)
        except Stopped:
            await self._settle()
        if not self._stop.asked:  # it may be in the middle of a gradient, for which nobody waits any more
            await self._drop_engine()

    async def _attempt(self) -> bool:
        """Train until it ends (true), or until an outage is over."""
        steps = self._steps
        try:
            outcome = await self._train()
        except (BoundaryError, OSError) as error:
            fault = as_fault(error)
        else:
            if outcome.stopped and self._stop.asked:
                await self._settle()
            elif outcome.stopped:
                note_stop(self._lease.fenced, outcome)
            return True
        self._barren = 0 if self._steps > steps else self._barren + 1
        if isinstance(fault, EngineFault):
            if self._barren >= MOST_BARREN:
                await self._pause(fault)  # the same step fails the same way: waiting mends nothing
                return True
            await self._drop_engine()
        await self._wait_out(fault)
        if not any((self._job.folder / "checkpoints").glob("step-*")):
            await self._drop_engine()  # its weights may have moved, and nothing would set them back
        return False

    async def _train(self) -> Outcome:
        async with AsyncExitStack() as opened:
            live = await self._opened(opened)
            return await train_job(live, self._lease.fenced, self._job, watch=self._count, should_stop=self._stop)

    async def _opened(self, opened: AsyncExitStack) -> build.Live:
        """The job's live objects over the engine, loaded where it is not yet; ToolFault for tools that are down."""
        job = self._job
        weights = await self._stop.cut(asyncio.to_thread(find_weights, job.model, base_dir=job.base_dir))
        if self._engine is None:
            self._engine = await self._stop.cut(self._load(job.spec, weights, True))
        kept = _Kept(self._engine)

        async def reuse(spec: JobSpec, weights: Weights, training: bool) -> build.Engine:
            return kept

        live = build.open_job(job.spec, job.base_dir, weights, training=True, load=reuse, network=self._network)
        try:
            return await self._stop.cut(opened.enter_async_context(live))
        except UserError as error:
            if error.code in _UNREACHABLE:
                raise ToolFault(error.message) from error
            raise

    def _count(self, progress: Progress) -> None:
        self._steps += isinstance(progress, StepDone)

    # Outages

    async def _wait_out(self, fault: BoundaryError) -> None:
        """The job is paused, and runs again when this returns; raises Stopped."""
        began = time.monotonic()
        is_told = await self._pause(fault, patiently=False)
        for look, wait_s in enumerate(waits_s(self._barren)):
            await self._rest(wait_s)
            try:
                await self._stop.cut(self._look_for(fault, look))
                is_told = is_told or await self._pause(fault, patiently=False)
                if is_told:
                    self._go_on(f"What failed works again after {time.monotonic() - began:.0f} s")
                    return
            except (BoundaryError, OSError) as error:
                as_fault(error)
                is_told = await self._pause(fault, patiently=False)  # again, where the user has resumed the job

    def _go_on(self, message: str) -> None:
        fenced, job_id = self._lease.fenced, self._job.id
        fenced.add_event(job_id, f"{message}; the job goes on.")
        fenced.set_job_status(job_id, "queued")
        fenced.set_job_status(job_id, "running")

    async def _rest(self, wait_s: float) -> None:
        """Until the next look; shorter when the user resumes the job."""
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0:
            await self._stop.cut(asyncio.sleep(min(left_s, 0.5)))
            with suppress(StoreFault):
                if self._lease.look()["status"] == "queued":
                    return

    async def _look_for(self, fault: BoundaryError, look: int) -> None:
        """Raises BoundaryError while it is still down."""
        await asyncio.to_thread(self._lease.renew)
        await asyncio.to_thread(write_some, self._job.folder)
        split = self._job.spec.played_split(self._job.kind)
        if isinstance(fault, StoreFault) or split is None:
            return
        items = items_of(self._job.spec, self._job.base_dir, split)
        async with AsyncExitStack() as opened:
            await play_one(await self._opened(opened), self._job.id, items, look)

    async def _pause(self, fault: BoundaryError, *, patiently: bool = True) -> bool:
        """The job is paused with the fault as its error; false where the store refuses and nobody is to wait for it."""
        with suppress(StoreFault):
            self._lease.look()
        await self._stop.cut(asyncio.sleep(0))  # a pause that the user wants is no outage's: it has to last
        error = {"code": fault.boundary, "message": str(fault), "param": None}
        return await self._say("paused", error, within_s=_SETTLE_S if patiently else 0.0)

    # The last word

    async def _settle(self) -> None:
        """The status that whoever stopped this worker wants."""
        if self._lease.wanted is Wanted.PAUSE:
            await self._say("paused", None)
            with suppress(StoreFault):
                if self._lease.look()["wish"]:  # it was paused already, by an outage
                    self._lease.fenced.ask(self._job.id, None)
        elif self._lease.wanted is Wanted.QUEUE:
            await self._say("queued", None)

    async def _say(self, status: str, error: dict[str, str | None] | None, *, within_s: float = _SETTLE_S) -> bool:
        """Set the status; raises StoreFault when the store refuses for `within_s`, or returns false where that is 0."""
        until = time.monotonic() + within_s
        for attempt in itertools.count():
            try:
                self._lease.fenced.set_job_status(self._job.id, status, error=error)
                return True
            except StoreFault:
                with suppress(StoreFault):
                    self._lease.look()
                if self._lease.wanted is Wanted.NOTHING:
                    raise Stopped("the job is no longer this worker's", keeps=False) from None
                if time.monotonic() >= until:
                    if within_s:
                        raise
                    return False
            await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
        raise AssertionError("unreachable: itertools.count ends never")

    async def _drop_engine(self) -> None:
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.close()


class _Kept:
    """An engine that outlives whoever borrows it."""

    def __init__(self, engine: build.Engine) -> None:
        self.generator = engine.generator
        self.learner = engine.learner
        self.device = engine.device
        self.dtype = engine.dtype

    async def close(self) -> None:
        """Nothing: its owner closes it."""
