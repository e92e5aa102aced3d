"""Runs a diagnosis: from a job and its settings to played episodes, and from these to a document that is kept.

An interrupted diagnosis of the same settings goes on with the episodes that are missing; a complete one comes back as
it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrft import build
from agentrft.audit import audit
from agentrft.diagnose import (
    Baseline,
    BaselinePlan,
    Diagnosis,
    Estimate,
    Price,
    agree,
    diagnose,
    estimate,
    grade_again,
    is_finished,
    play,
)
from agentrft.graders import AnySpec, EndpointSpec, MultiSpec
from agentrft.jobs.audit import asks_model, audit_items, audit_plan, honest_episodes
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.models import Weights
from agentrft.jobs.service import StoredJob
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import EpisodeRecord
from agentrft.rollout import GradedEpisode
from agentrft.runtime.diagnosed import Settings, job_for, latest_diagnosis, write_diagnosis
from agentrft.runtime.inprocess import working_on
from agentrft.runtime.players import Player, open_player
from agentrft.runtime.seen import seen_of
from agentrft.store import SqlStore
from agentrft.types import Episode, TokenUsage

_MOST_EPISODES = 1_000_000
_FIRST = 8
"""Episodes after which the estimate is made."""
_AUDIT_ITEMS = 4
_REGRADED, _REGRADED_BY_JUDGE = 30, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who is told what happens, and asked whether to stop. All are called from the event loop and must not block."""

    started: Callable[[Player, BaselinePlan, int], None] = lambda player, plan, done: None
    episode: Callable[[GradedEpisode, int], None] = lambda graded, done: None
    estimated: Callable[[Estimate], None] = lambda estimate: None
    doing: Callable[[str], None] = lambda what: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a diagnosis ended."""

    job: StoredJob
    document: dict[str, Any] | None
    """None when it was asked to stop; the same settings go on from there."""
    done: int
    planned: int
    was_complete: bool = False
    """Nothing was played: this is the earlier result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to diagnose."""

    spec: JobSpec
    base_dir: Path
    settings: Settings
    find: Callable[[], Weights] | None = None
    """Where the weights are, asked only when something has to be played; None with an endpoint."""
    also: StoredJob | None = None
    """A stored job that the result is kept with, besides the evaluation job of its own."""
    price: Price | None = None
    again: bool = False
    """Anew, although these settings have been diagnosed."""
    load: build.LoadEngine | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the document."""


async def run_diagnosis(store: SqlStore, request: Request, watching: Watching | None = None) -> Outcome:
    """Play what is missing, look at all of it, and keep the result.

    Raises UserError for a job that cannot be played, BoundaryError when a part that it needs is down.
    """
    watching = watching or Watching()
    job = job_for(store, request.spec, request.base_dir, request.settings, again=request.again)
    planned = len(request.settings.items) * request.settings.samples
    kept = latest_diagnosis(job)
    if kept is not None and job.status == "succeeded":
        _keep_with(store, request.also, kept)
        return Outcome(job=job, document=kept, done=planned, planned=planned, was_complete=True)
    async with working_on(store, job) as fenced:
        model = request.settings.endpoint or await asyncio.to_thread(_weights, request)
        async with open_player(request.spec, request.base_dir, model, load=request.load) as player:
            sitting = _Sitting(fenced, job, request, player, watching)
            document = await sitting.run()
        if document is None:
            fenced.set_job_status(job.id, "paused")
            fenced.add_event(job.id, f"Stopped after {sitting.done} of {planned} episodes")
            return Outcome(job=job, document=None, done=sitting.done, planned=planned)
        _keep_with(fenced, job, document)
        fenced.set_job_status(job.id, "succeeded")
    _keep_with(store, request.also, document)
    return Outcome(job=job, document=document, done=planned, planned=planned)


class _Sitting:
    """One process's work on a diagnosis."""

    def __init__(self, store: SqlStore, job: StoredJob, request: Request, player: Player, watching: Watching) -> None:
        self._store = store
        self._job = job
        self._request = request
        self._player = player
        self._watching = watching
        self._records = _stored_records(store, job.id)
        self._first: list[GradedEpisode] = []
        self._played = 0
        self.plan = self._make_plan()
        self._places = self.plan.places()
        self.done = len(self._records)

    async def run(self) -> dict[str, Any] | None:
        """Play and look; None when it was asked to stop."""
        self._watching.started(self._player, self.plan, self.done)
        began_s = time.monotonic()
        finished = {id: GradedEpisode(episode=r.episode, grade=r.grade) for id, r in self._records.items()}
        baseline = await play(
            self.plan,
            self._player.agent,
            self._player.grader,
            finished=finished,
            on_graded=self._on_graded,
            should_stop=self._watching.should_stop,
        )
        if baseline is None:
            return None
        played_s = time.monotonic() - began_s
        pace = {"episodes": self._played, "wall_s": played_s, "per_hour": 3600 * self._played / max(played_s, 1e-3)}
        return {**await self._look(baseline), "pace": pace if self._played else None}

    def _make_plan(self) -> BaselinePlan:
        settings, spec = self._request.settings, self._request.spec
        concurrency = settings.endpoint.max_concurrency if settings.endpoint else 64
        return BaselinePlan(
            job_id=self._job.id,
            stage="diagnose",
            split=settings.split,
            items=settings.items,
            samples=settings.samples,
            pass_threshold=build.pass_threshold_of(spec),
            penalties=spec.training.penalties,
            in_flight=concurrency,
        )

    def _on_graded(self, graded: GradedEpisode) -> None:
        episode = graded.episode
        extra: dict[str, object] = {}
        if raw := self._player.raw.pop(episode.trace_id, None):
            extra["raw"] = raw
        if used := self._used(episode):
            extra["usage"] = {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
        record = self.plan.record(graded, extra)
        self._store.add_episodes(self._job.id, [record])
        if episode.id not in self._records:
            self.done += 1
        self._records[episode.id] = record
        self._watching.episode(graded, self.done)
        self._estimate(graded)

    def _estimate(self, graded: GradedEpisode) -> None:
        """Once, after the first episodes of this sitting."""
        self._played += 1
        self._first.append(graded)
        left = self.plan.n_episodes - self.done
        if len(self._first) != _FIRST or left <= 0:
            return
        used = (self._used(one.episode) for one in self._first)
        made = estimate(
            self._first,
            left,
            in_flight=self.plan.items_in_flight * self.plan.samples,
            counted=[(one.prompt_tokens, one.completion_tokens) for one in used if one is not None],
            price=self._request.price,
        )
        self._watching.estimated(made)

    def _used(self, episode: Episode) -> TokenUsage | None:
        """What the provider counted."""
        return self._player.usage.get((self._places[episode.item_id, episode.attempt], episode.member))

    async def _look(self, baseline: Baseline) -> dict[str, Any]:
        spec, player = self._request.spec, self._player
        judged = _is_costly(spec)
        self._watching.doing("grading some episodes again")
        most = _REGRADED_BY_JUDGE if judged else _REGRADED
        repeat = await grade_again(baseline.groups, player.grader, episodes=most)
        second = None if player.second is None else await agree(baseline.groups, player.second, episodes=100)
        fooled_by = None
        if not judged and spec.audit and spec.audit.probes:
            self._watching.doing("auditing the grader")
            fooled_by = await _fooled_by(spec, self._request.base_dir, baseline, player)
        self._watching.doing("looking for classes of failure")
        records_I_G = [[self._records[episode.id] for episode in group.episodes] for group in baseline.groups]
        diagnosis = Diagnosis(
            baseline=baseline,
            records_I_G=records_I_G,
            seen=seen_of(spec, player.tools, baseline, records_I_G),
            tool_names=player.tools.names,
            repeat=repeat,
            agreement=second,
            fooled_by=fooled_by,
        )
        document = await asyncio.to_thread(diagnose, diagnosis)
        return {**self._head(), **document, **self._request.extra}

    def _head(self) -> dict[str, Any]:
        settings, spec = self._request.settings, self._request.spec
        grader = spec.method.reinforcement.grader if spec.method.reinforcement else None
        return {
            "job": self._job.id,
            "created_at": round(time.time(), 3),
            "model": settings.model,
            "endpoint": settings.endpoint.base_url if settings.endpoint else None,
            "engine": self._player.engine,
            "bundle": bundle_hash(spec, self._request.base_dir),
            "grader": {"name": grader.name, "kind": _kind(grader)} if grader else None,
        }


def _weights(request: Request) -> Weights:
    assert request.find is not None
    return request.find()


def _stored_records(store: SqlStore, job_id: str) -> dict[str, EpisodeRecord]:
    """Episodes that stand, by id."""
    records = store.list_episodes(job_id, limit=_MOST_EPISODES)
    return {
        record.episode.id: record
        for record in records
        if is_finished(GradedEpisode(episode=record.episode, grade=record.grade))
    }


def _keep_with(store: SqlStore, job: StoredJob | None, document: dict[str, Any]) -> None:
    """The report in the job's folder, and an event that says so."""
    if job is None or (job.id != document["job"] and latest_diagnosis(job) == document):
        return
    path = write_diagnosis(job, document)
    ruling, shared = document["verdict"], ("job", "bundle", "model", "split", "created_at")
    data = {"diagnosis": {**{name: document[name] for name in shared}, "verdict": ruling, "path": str(path)}}
    store.add_event(job.id, f"Diagnosed: {ruling['go']} ({ruling['rule']}): {ruling['why']}", data=data)


async def _fooled_by(spec: JobSpec, base_dir: Path, baseline: Baseline, player: Player) -> tuple[str, ...]:
    """Names of the audit's probes and checks that failed."""
    known = audit_items(spec, base_dir)
    played = [pair for group in baseline.groups for pair in zip(group.episodes, group.grades, strict=True)]
    plan = audit_plan(spec, base_dir, honest=honest_episodes(played, known), n_items=_AUDIT_ITEMS)
    report = await audit(plan, player.grader)
    return tuple(line.name for line in report.lines if line.verdict == "failed")


def _is_costly(spec: JobSpec) -> bool:
    """Whether a grading asks a model or a service: it is then graded again on fewer episodes, and not audited."""
    grader = spec.method.reinforcement.grader if spec.method.reinforcement else None
    return grader is not None and _kind(grader) != "code"


def _kind(grader: AnySpec) -> str:
    """`judge`, `endpoint` or `code`."""
    if asks_model(grader):
        return "judge"
    parts: Sequence[AnySpec] = list(grader.graders.values()) if isinstance(grader, MultiSpec) else [grader]
    return "endpoint" if any(isinstance(part, EndpointSpec) for part in parts) else "code"
