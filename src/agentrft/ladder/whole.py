"""Climbs the whole ladder: diagnose → optimise → decide → train → evaluate, as far as the next rung is worth it.

Every piece (a rung's figures, a decision, a search, a training) is on the disk when it is done. An interrupted climb of
the same plan runs through the pieces again and plays only what is missing.
"""

from __future__ import annotations

import time
from dataclasses import replace

from agentrft import build
from agentrft.home import home
from agentrft.jobs.probe import missing_grader
from agentrft.jobs.service import StoredJob, create_job, stored_job
from agentrft.ladder.pieces import Pieces
from agentrft.ladder.rules import Verdict
from agentrft.ladder.rungs import Rung, gain_of, next_method, ruling
from agentrft.ladder.state import LadderState, open_ladder
from agentrft.ladder.stops import Halt, Stops
from agentrft.ladder.whole_plan import Watching, WholePlan
from agentrft.ladder.whole_result import BUDGET, COMPARED, WholeResult
from agentrft.store import SqlStore
from agentrft.train.stop import ShouldStop


async def climb_whole(
    plan: WholePlan,
    store: SqlStore,
    *,
    watching: Watching | None = None,
    should_stop: ShouldStop = lambda: None,
    deadline_s: float | None = None,
    again: bool = False,
    load: build.LoadEngine | None = None,
) -> WholeResult:
    """Run what is missing of the plan and return what there is; a complete climb comes back as it was, unless `again`.

    `should_stop` is asked between episodes of a diagnosis, between batches of a search and after steps of a training.
    `deadline_s` (of `time.monotonic`) stops there too, early enough to measure what reinforcement has reached.
    `WholeResult.stopped` says which it was; the same plan climbed again goes on from there. The result is kept with
    the climb's stored job. Raises UserError for a job that cannot be climbed, BoundaryError when a part of it is down.
    """
    if plan.spec.method.reinforcement is None:
        raise missing_grader()
    state = open_ladder(home() / "ladders", plan.key, again=again)
    job = _climb_job(plan, store, state)
    pieces = Pieces(plan, store, job, state, watching or Watching(), Stops(should_stop, deadline_s), load)
    climb, stopped, started = _Climb(plan, pieces), None, time.monotonic()
    was_complete = state.is_complete
    _bring(store, job.id, "running")
    try:
        await climb.run()
        state.is_complete = True
    except Halt as halt:
        stopped = halt.reason
    finally:
        if not was_complete:
            state.wall_s += time.monotonic() - started
            state.save()
        _bring(store, job.id, "succeeded" if state.is_complete else "paused")
    result = climb.result(store, stopped)
    result.keep(store)
    return result


class _Climb:
    """One climb: which rungs there are, and where it goes on."""

    def __init__(self, plan: WholePlan, pieces: Pieces) -> None:
        self._plan = plan
        self._pieces = pieces
        self._rungs: list[Rung] = []
        self._notes: list[str] = []
        self._ending = ""

    async def run(self) -> None:
        """From the job as it is to where nothing further is worth it; raises Halt where it is stopped."""
        base = await self._measured(self._pieces.first_rung())
        standing = await self._optimised(await self._decided(base))
        if len(self._plan.methods) > 1:
            await self._compare(standing)
        else:
            await self._train(standing)

    def result(self, store: SqlStore, stopped: str | None) -> WholeResult:
        """What has been found so far."""
        state = self._pieces.state
        return WholeResult(
            plan=self._plan,
            job=self._pieces.job,
            rungs=tuple(self._rungs),
            optimisation=self._pieces.optimisation,
            ending=None if stopped else self._ending,
            stopped=stopped,
            notes=tuple(self._notes),
            episodes=dict(state.episodes),
            wall_s=state.wall_s,
            folder=state.folder,
        )

    async def _optimised(self, base: Rung) -> Rung:
        """The rung to go on from: with adopted edits, or as it was where none was sought, adopted or of use."""
        if base.decision is None or ruling(base.decision, searched=False)[0] is not Verdict.OPTIMISE:
            return base
        report = await self._pieces.search(base, self._notes.append)
        if report is None:
            return base
        if report["verdict"] != "adopted":
            return self._put(replace(base, decision=self._pieces.decided_again(base)))
        rung = await self._measured(self._pieces.edited_rung(base, report))
        if self._is_lower(rung, base):
            return base
        return await self._decided(rung)

    async def _train(self, standing: Rung) -> None:
        """One method after another, as the decisions say, each at most once."""
        done: list[str] = []
        while standing.decision is not None:
            method = next_method(standing.decision, searched=True, done=done, only=self._plan.methods)
            if method is None:
                self._ending = ruling(standing.decision, searched=True)[0].value
                return
            done.append(method)
            job = self._pieces.training_job(method, standing, self._notes.append)
            if job is None:
                continue
            rung = await self._measured(await self._pieces.trained(method, job, standing))
            if not self._is_lower(rung, standing):
                standing = await self._decided(rung)
        self._ending = BUDGET
        self._notes.append("The budget is spent: nothing was decided after the last rung.")

    async def _compare(self, standing: Rung) -> None:
        """Every method that was named, from the same rung, the same episodes and as many new ones."""
        if standing.decision is None:
            self._ending = BUDGET
            return
        verdict = ruling(standing.decision, searched=True)[0]
        if next_method(standing.decision, searched=True, done=(), only=()) is None:
            self._ending = verdict.value
            return
        for method in self._plan.methods:
            job = self._pieces.training_job(method, standing, self._notes.append, compared=True)
            if job is not None:
                await self._measured(await self._pieces.trained(method, job, standing))
        self._ending = COMPARED

    async def _measured(self, rung: Rung) -> Rung:
        """The rung with its figures; raises Halt after them where its training was stopped."""
        measured = await self._pieces.measure(rung)
        rung = self._put(replace(rung, measured=measured))
        if self._pieces.training_stopped:
            raise Halt(self._pieces.training_stopped)
        return rung

    async def _decided(self, rung: Rung) -> Rung:
        return self._put(replace(rung, decision=await self._pieces.decide(rung)))

    def _put(self, rung: Rung) -> Rung:
        self._rungs = [*(one for one in self._rungs if one.name != rung.name), rung]
        return rung

    def _is_lower(self, rung: Rung, before: Rung) -> bool:
        """Whether it lowered the reward for certain: then nothing goes on from it."""
        gain = gain_of(rung, before)
        if gain.high >= 0:
            return False
        self._notes.append(f"{rung.name} lowered the reward: the climb went on from {before.name}.")
        return True


def _climb_job(plan: WholePlan, store: SqlStore, state: LadderState) -> StoredJob:
    """The stored job that the climb's figures and its report belong to, made on the first climb."""
    if "climb" not in state.jobs:
        extra = {"climb": {"key": plan.key, "folder": str(state.folder)}}
        state.jobs["climb"] = create_job(store, plan.spec, plan.base_dir, kind="evaluation", extra=extra).id
        state.save()
    return stored_job(store, state.jobs["climb"])


def _bring(store: SqlStore, job_id: str, status: str) -> None:
    """Move the climb's job there, whatever a killed process has left it in; a job that has succeeded stays so."""
    now = store.get_job(job_id)["status"]
    if now == "succeeded" or now == status:
        return
    for step in ("queued", "running") if status == "running" else (status,):
        store.set_job_status(job_id, step)
