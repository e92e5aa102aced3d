"""Optimisation of a job: its agent as `Play`, its items as a split, the findings as files to read and to apply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentrft.build import Engine
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.load import parse_job
from agentrft.jobs.models import Weights
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import StoredJob, create_job, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.optimise import Edit, OptimisePlan, Outcome, Played, Split, Tally, optimise, split_items
from agentrft.optimise.patch import edited_text, unified_diff
from agentrft.optimise.propose import Evidence
from agentrft.protocols import ChatEndpoint, EpisodeRecord, Grader, Store
from agentrft.rollout import Agent, Rollout, Seat, run_groups, trained_tokens
from agentrft.runtime.inprocess import working_on
from agentrft.runtime.players import open_player
from agentrft.store import SqlStore
from agentrft.train.evaluate import EvalPlan
from agentrft.types import Episode, Grade, Item, StopReason, ToolSpec
from agentrft.writing import write_whole

OpenAgent = Callable[[JobSpec], AbstractAsyncContextManager[tuple[Agent, Grader]]]
"""An agent as a job document describes it, and its grader, for as long as a few episodes take."""
Further = Callable[[Evidence], Awaitable[Sequence[Edit]]]

_MOST_JOBS_SEARCHED = 10_000
PATCH, CHANGES, REPORT = "changes.patch", "changes.json", "report.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who is told what happens; called from the event loop, must not block."""

    tell: Callable[[str], None] = lambda text: None
    on_episode: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job file that is to be optimised."""

    path: Path
    text: str
    document: Mapping[str, Any]
    spec: JobSpec

    @classmethod
    def read(cls, path: Path, spec: JobSpec) -> Task:
        """The file that `spec` was read from."""
        text = path.read_text(encoding="utf-8")
        return cls(path=path, text=text, document=yaml.safe_load(text), spec=spec)

    @property
    def base_dir(self) -> Path:
        """Where the file's paths start."""
        return self.path.resolve().parent

    def key(self, plan: OptimisePlan, *who: str | None) -> str:
        """Sixteen hex digits: the same file, agent and plan, played and proposed by the same `who`, go on together."""
        text = json.dumps([self.text, bundle_hash(self.spec, self.base_dir), repr(plan), who])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def split(self, plan: OptimisePlan) -> Split:
        """Its items by purpose; raises UserError for too few."""
        held_out = items_of(self.spec, self.base_dir, "validation") if self.spec.data.validation else []
        return split_items(items_of(self.spec, self.base_dir, "train"), held_out, plan)


def optimisation_job(store: Store, task: Task, plan: OptimisePlan, model: str, *also: str | None) -> StoredJob:
    """The stored job of this optimisation, made on its first run and found again on later ones.

    `also` are addresses that matter: of the API that plays, of the one that proposes.
    """
    key = task.key(plan, model, *also)
    for job in store.list_jobs(limit=_MOST_JOBS_SEARCHED):
        if job.get("optimisation", {}).get("key") == key and job["status"] not in ("failed", "cancelled"):
            return stored_job(store, job["id"])
    extra = {"optimisation": {"key": key}}
    return create_job(store, task.spec, task.base_dir, kind="evaluation", start_from=model, extra=extra)


class JobPlayer:
    """`Play` for the candidates of a job. Episodes of the job as it is are stored, as evidence to look up."""

    def __init__(
        self, task: Task, store: Store, job: StoredJob, open_agent: OpenAgent, on_episode: Callable[[], None]
    ) -> None:
        """Files that edits bring go into the stored job's folder; `on_episode` is called after each episode."""
        self._task = task
        self._store = store
        self._job = job
        self._open_agent = open_agent
        self._on_episode = on_episode

    async def __call__(
        self, document: Mapping[str, Any], files: Mapping[str, str], slots: Sequence[tuple[Item, int]]
    ) -> list[Played]:
        """See `Play`."""
        spec = parse_job(self._with_files(document, files), source="candidate")
        is_base = document == self._task.document
        items = {item.id: item for item in self._items(spec)}
        by_sample: dict[int, list[int]] = {}
        for place, (_, sample) in enumerate(slots):
            by_sample.setdefault(sample, []).append(place)
        played: dict[int, Played] = {}
        async with self._open_agent(spec) as (agent, grader):
            for sample, places in by_sample.items():
                seats = [Seat(index=index, item=items[slots[place][0].id]) for index, place in enumerate(places)]
                rollout = Rollout(run=self._job.id, step=sample, members=1, seats=seats)
                groups = await run_groups(rollout, agent, grader, on_graded=lambda _: self._on_episode())
                for place, group in zip(places, groups, strict=True):
                    episode, grade = group.episodes[0], group.grades[0]
                    played[place] = Played(episode=episode, tally=_tally(spec, episode, grade))
                if is_base:
                    self._keep([(group.grades[0], played[n]) for n, group in zip(places, groups, strict=True)])
        return [played[place] for place in range(len(slots))]

    def _keep(self, graded: Sequence[tuple[Grade, Played]]) -> None:
        records = [
            EpisodeRecord(
                job_id=self._job.id,
                phase="train",
                stage="base",
                episode=one.episode,
                grade=grade,
                reward=one.tally.reward,
            )
            for grade, one in graded
        ]
        self._store.add_episodes(self._job.id, records)

    def _items(self, spec: JobSpec) -> list[Item]:
        splits = [split for split in ("train", "validation") if spec.data.path_of(split)]
        return [item for split in splits for item in items_of(spec, self._task.base_dir, split)]

    def _with_files(self, document: Mapping[str, Any], files: Mapping[str, str]) -> Mapping[str, Any]:
        """The document with the files that edits bring where they can be read."""
        demos = document.get("agent", {}).get("demos")
        if demos not in files:
            return document
        text = files[demos]
        path = self._job.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{demos}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return {**document, "agent": {**document["agent"], "demos": str(path)}}


def _tally(spec: JobSpec, episode: Episode, grade: Grade) -> Tally:
    plan = EvalPlan(run="", split="", stage="", items=(), samples=1, penalties=spec.training.penalties)
    reward = None if episode.stop_reason is StopReason.FAULT else plan.reward(episode, grade).value
    results = [result for turn in episode.turns for result in turn.results]
    return Tally(
        reward=reward,
        tokens=trained_tokens(episode),
        calls=episode.n_calls,
        interventions=sum(len(result.interventions) for result in results),
        wall_s=episode.wall_s,
    )


def agents_over(base_dir: Path, model: Weights | ChatEndpoint, engine: Engine | None = None) -> OpenAgent:
    """Agents over one model: `engine`, with its weights loaded, or an API."""

    async def load(_spec: JobSpec, _weights: Weights, _training: bool) -> Engine:
        assert engine is not None
        return _Borrowed(engine)

    @asynccontextmanager
    async def open_agent(spec: JobSpec) -> AsyncIterator[tuple[Agent, Grader]]:
        async with open_player(spec, base_dir, model, load=load) as player:
            yield player.agent, player.grader

    return open_agent


class _Borrowed:
    """An engine that whoever closes it only gives back."""

    def __init__(self, engine: Engine) -> None:
        self.generator = engine.generator
        self.learner = engine.learner
        self.device = engine.device
        self.dtype = engine.dtype

    async def close(self) -> None:
        """The owner closes it."""


async def optimise_job(
    store: SqlStore,
    job: StoredJob,
    task: Task,
    plan: OptimisePlan,
    open_agent: OpenAgent,
    tools: Sequence[ToolSpec],
    *,
    further: Further | None = None,
    watching: Watching | None = None,
) -> dict[str, Any]:
    """Optimise, and leave report, patch and changes in the stored job's folder; the report as JSON.

    Raises as `optimise`, and UserError when another process is at it. Called again with the same job it goes on where
    it was interrupted, and gives back what it found once it is complete.
    """
    if (known := found_already(store, job)) is not None:
        return known
    watching, split = watching or Watching(), task.split(plan)
    async with working_on(store, job) as fenced:
        play = JobPlayer(task, fenced, job, open_agent, watching.on_episode)
        outcome = await optimise(
            plan, split, play, task.document, tools, job.folder, further=further, tell=watching.tell
        )
        document = report_of(outcome, task, plan, job)
        write_whole(job.folder / REPORT, json.dumps(document, indent=2) + "\n")
        if outcome.verdict == "adopted":
            edits = [(f"h{number}", one.edit) for number, one in enumerate(outcome.kept, 1)]
            after = edited_text(task.text, [edit for _, edit in edits])
            write_whole(job.folder / PATCH, unified_diff(task.path.name, task.text, after, edits))
            write_whole(job.folder / CHANGES, json.dumps(changes_of(task, edits), indent=2) + "\n")
        mark = store.get_job(job.id)["optimisation"]
        fenced.update_job(job.id, {"optimisation": {**mark, "report": document}})
        fenced.set_job_status(job.id, "succeeded")
    return document


def found_already(store: Store, job: StoredJob) -> dict[str, Any] | None:
    """The report of an optimisation that is complete; None for one that is not."""
    kept = store.get_job(job.id)
    return kept["optimisation"]["report"] if kept["status"] == "succeeded" else None


async def told_tools(task: Task) -> list[ToolSpec]:
    """Every tool as the model is told about it now: those that rows list, and those that describe themselves."""
    bound = await open_tools(task.spec, task.base_dir)
    await bound.close()
    listed = (spec for item in items_of(task.spec, task.base_dir, "train") for spec in item.tools)
    return list({spec.name: spec for spec in (*listed, *bound.specs)}.values())


def report_of(outcome: Outcome, task: Task, plan: OptimisePlan, job: StoredJob) -> dict[str, Any]:
    """The result as JSON, schema 1; intervals are `{mean, low, high, n_items, n_episodes}`."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "job": str(task.path),
        "id": job.id,
        "model": job.model,
        "bundle": bundle_hash(task.spec, task.base_dir),
        "verdict": outcome.verdict,
        "budget": plan.budget,
        "spent": outcome.spent,
        "tried": [{"component": edit.component, "kind": edit.kind, "why": edit.why} for edit in outcome.menu],
        "hunks": [
            {
                "id": f"h{number}",
                "component": one.edit.component,
                "kind": one.edit.kind,
                "why": one.edit.why,
                "evidence": list(one.edit.evidence),
                "loss_without": one.loss_without,
                "n_slots": one.n_slots,
            }
            for number, one in enumerate(outcome.kept, 1)
        ],
        "searched": outcome.searched,
        "confirmation": None,
    }
    found = outcome.confirmation
    if found is not None:
        document["confirmation"] = {
            "gain": found.gain.to_json(),
            "smallest_seen": found.smallest_seen,
            "wins": len(found.wins),
            "losses": list(found.losses),
            "ties": found.ties,
            "dearer": list(found.dearer),
            **{
                name: {
                    "reward": side.reward.to_json(),
                    "tokens": side.tokens,
                    "calls": side.calls,
                    "interventions": side.interventions,
                    "wall_s": side.wall_s,
                }
                for name, side in (("before", found.before), ("after", found.after))
            },
        }
    return document


def changes_of(task: Task, edits: Sequence[tuple[str, Edit]]) -> dict[str, Any]:
    """What `agentrft apply` reads: every hunk by itself, and the job file that it is for."""
    return {
        "schema": SCHEMA,
        "job": str(task.path.resolve()),
        "job_sha256": hashlib.sha256(task.text.encode()).hexdigest(),
        "hunks": [
            {
                "id": label,
                "component": edit.component,
                "kind": edit.kind,
                "why": edit.why,
                "sets": [[list(place), value] for place, value in edit.sets],
                "adds": [[list(place), told, sentence] for place, told, sentence in edit.adds],
                "files": dict(edit.files),
            }
            for label, edit in edits
        ],
    }


def edit_of(hunk: Mapping[str, Any]) -> Edit:
    """A hunk of `changes_of`, read back."""
    return Edit(
        kind=hunk["kind"],
        component=hunk["component"],
        sets=tuple((tuple(place), value) for place, value in hunk["sets"]),
        adds=tuple((tuple(place), told, sentence) for place, told, sentence in hunk["adds"]),
        why=hunk["why"],
        files=hunk["files"],
    )
