"""Values one turn of a stored episode: from the record to continuations that are kept, and the document about them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agentrft import build
from agentrft.diagnose import BaselinePlan, Side, TurnValue, value_turn
from agentrft.diagnose.turn_value import SCHEMA
from agentrft.jobs.models import Weights
from agentrft.jobs.service import StoredJob, create_job
from agentrft.protocols import ChatEndpoint, EpisodeRecord
from agentrft.rollout import Agent, Branch, EpisodeKey, reach
from agentrft.runtime.players import Player, open_player
from agentrft.store import SqlStore
from agentrft.types import Episode, Item


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """Which decision, and who goes on from it."""

    job: StoredJob
    """Of the episode: its agent and grader."""
    record: EpisodeRecord
    turn: int
    """From 0."""
    item: Item
    samples: int
    """Continuations on each side."""
    model: str
    """As the user names it."""
    find: Callable[[], Weights] | None = None
    """Where the weights are; None with an endpoint."""
    endpoint: ChatEndpoint | None = None
    load: build.LoadEngine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnWatching:
    """Who is told what happens; all are called from the event loop and must not block."""

    reached: Callable[[Player, Branch], None] = lambda player, branch: None
    """The turn was reached again, and continuations begin."""
    played: Callable[[Episode], None] = lambda episode: None


async def run_turn_value(store: SqlStore, request: TurnRequest, watching: TurnWatching | None = None) -> dict[str, Any]:
    """What the turn was worth, as JSON data (docs/cli.md); the continuations are kept as an evaluation job.

    Raises UserError where the episode cannot be repeated, BoundaryError when the tools fail before the turn.
    """
    watching = watching or TurnWatching()
    spec, base_dir, episode = request.job.spec, request.job.base_dir, request.record.episode
    model = request.endpoint or await asyncio.to_thread(_weights, request)
    async with open_player(spec, base_dir, model, load=request.load) as player:
        # The job's own tools: those that a player keeps whole outputs of cannot be set back.
        agent = replace(player.agent, tools=player.tools)
        key = EpisodeKey(run=f"{episode.id}/reach", step=request.turn, item=request.item.id, member=0)
        branch = await reach(episode, request.turn, request.item, agent, key)
        extra = {"probe": {"episode": episode.id, "turn": request.turn + 1}}
        job = create_job(store, spec, base_dir, kind="evaluation", start_from=request.model, extra=extra)
        watching.reached(player, branch)
        store.set_job_status(job.id, "running")
        try:
            value = await _valued(job.id, request, branch, agent, player, watching)
            for side in (value.before, value.after):
                store.add_episodes(job.id, _records(side, branch))
        except BaseException:
            store.set_job_status(job.id, "failed")
            raise
        store.set_job_status(job.id, "succeeded")
    return {"schema": SCHEMA, "job": job.id, "model": request.model, **value.to_json()}


async def _valued(
    job_id: str, request: TurnRequest, branch: Branch, agent: Agent, player: Player, watching: TurnWatching
) -> TurnValue:
    spec = request.job.spec
    before, after = (
        BaselinePlan(
            job_id=job_id,
            stage=side,
            split=request.record.extra.get("split", request.record.phase),
            items=[request.item],
            samples=request.samples,
            pass_threshold=build.pass_threshold_of(spec),
            penalties=spec.training.penalties,
        )
        for side in ("before", "after")
    )
    return await value_turn(branch, (before, after), agent, player.grader, on_played=watching.played)


def _records(side: Side, branch: Branch) -> list[EpisodeRecord]:
    extra = {"continues": {"episode": branch.episode.id, "turn": branch.turn + 1, "from": side.plan.stage}}
    return [side.plan.record(graded, extra) for graded in side.graded]


def _weights(request: TurnRequest) -> Weights:
    assert request.find is not None
    return request.find()
