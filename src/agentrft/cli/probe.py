"""`agentrft probe EPISODE --turn K`: what one decision of a recorded episode was worth."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from agentrft.cli.console import err, note, out, warn
from agentrft.cli.option_group import takes
from agentrft.cli.played_by import PlayedBy
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.jobs.models import Weights
    from agentrft.jobs.service import StoredJob
    from agentrft.rollout import Branch
    from agentrft.runtime.players import Player
    from agentrft.runtime.turn_value import TurnRequest
    from agentrft.store import SqlStore
    from agentrft.types import Episode

TOO_LITTLE_DATA = 4
"""Exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuedBy(PlayedBy):
    """Who goes on with the episode."""

    model: str | None = typer.Option(
        None,
        help="Model, trained model, job id or checkpoint that goes on; default: the one that played it.",
        metavar="MODEL",
    )


@takes("who", ContinuedBy)
def probe(
    episode: str = typer.Argument(help="An episode's id, or the beginning of one.", metavar="EPISODE"),
    turn: int = typer.Option(help="Which decision: the episode's replies are counted from 1.", metavar="K"),
    samples: int = typer.Option(8, min=4, max=256, help="Continuations from before the turn, and from after it."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON on stdout."),
    *,
    who: ContinuedBy,
) -> None:
    """Say what one decision did to the expected reward: go on from before and from after it, and compare."""
    from agentrft.report.turn_value import turn_value_view
    from agentrft.store import open_store

    store = open_store()
    try:
        document = asyncio.run(_run(store, _request(store, episode, turn, samples, who)))
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        out().print(turn_value_view(document))
    note(f"continuations: agentrft jobs episodes {document['job']}")
    raise typer.Exit(TOO_LITTLE_DATA if document["verdict"] == "too_few" else 0)


def _request(store: SqlStore, episode: str, turn: int, samples: int, who: ContinuedBy) -> TurnRequest:
    from agentrft.jobs.recorded import item_of, model_of
    from agentrft.jobs.service import stored_job
    from agentrft.runtime.turn_value import TurnRequest

    at = who.at()
    record = store.get_episode(store.find_episode(episode))
    job = stored_job(store, record.job_id)
    item = item_of(job, record)
    model = at.model if at else who.model or model_of(store, job, record)
    return TurnRequest(
        job=job,
        record=record,
        turn=turn - 1,
        item=item,
        samples=samples,
        model=model,
        find=None if at else partial(_find, model, job),
        endpoint=at,
    )


def _find(model: str, job: StoredJob) -> Weights:
    """The weights; warns where they were trained with another bundle."""
    from agentrft.jobs.bundle import bundle_hash
    from agentrft.jobs.models import find_weights

    weights = find_weights(model, base_dir=job.base_dir)
    if weights.bundle not in (None, bundle_hash(job.spec, job.base_dir)):
        warn(f"{model} was trained with another prompt, other tools or guardrails than this job has now")
    return weights


async def _run(store: SqlStore, request: TurnRequest) -> dict[str, Any]:
    from agentrft.runtime.turn_value import TurnWatching, run_turn_value

    with ExitStack() as stack:
        display = stack.enter_context(Display(err()))
        inner = stack.enter_context(ExitStack())
        task = inner.enter_context(display.task("loading the model, making the calls before the turn again"))

        def reached(player: Player, branch: Branch) -> None:
            nonlocal task
            inner.close()
            display.line(f"{request.model}, {player.engine}: {2 * request.samples} continuations")
            if branch.differences:
                warn("the calls before the turn no longer give what was recorded: the figures are about another state")
            task = inner.enter_context(display.task("continuations", 2 * request.samples))

        def played(episode: Episode) -> None:
            task.advance()

        return await run_turn_value(store, request, TurnWatching(reached=reached, played=played))
