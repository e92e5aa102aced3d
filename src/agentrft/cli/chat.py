"""`agentrft chat MODEL`: talk to a model; with a job, as its agent with its tools."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentrft.cli.console import err, note, out
from agentrft.cli.jobref import read_job
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.build import Live
    from agentrft.jobs.spec import JobSpec
    from agentrft.types import Episode, Item


def chat(
    model: str = typer.Argument(help="Model, trained model, job id or checkpoint.", metavar="MODEL"),
    job: str | None = typer.Option(None, help="Job file or job id whose system message, tools and limits to use."),
    item: str | None = typer.Option(None, help="Id of the job's test item whose world the tools show; default: first."),
    temperature: float = typer.Option(0.0, min=0.0, max=2.0, help="0 always takes the likeliest token."),
    force: bool = typer.Option(False, help="Also with another prompt, tools or guardrails than it was trained with."),
) -> None:
    """Type questions, see calls, results and answers. An empty line or Ctrl-D ends."""
    from agentrft.build import require_torch
    from agentrft.jobs.bundle import check_bundle
    from agentrft.jobs.models import find_weights

    require_torch()
    spec, base_dir = _document(model, job)
    if job is not None and not force:
        check_bundle(find_weights(model, base_dir=base_dir).bundle, spec, base_dir, model=model)
    asyncio.run(_chat(model, spec, base_dir, item, temperature))


def _document(model: str, job: str | None) -> tuple[JobSpec, Path]:
    from agentrft.jobs.spec import Data, JobSpec
    from agentrft.store import open_store

    if job is None:
        return JobSpec(model=model, data=Data()), Path.cwd()
    store = open_store()
    try:
        return read_job(store, job)
    finally:
        store.close()


async def _chat(model: str, spec: JobSpec, base_dir: Path, item_id: str | None, temperature: float) -> None:
    from agentrft.cli.live import open_with_progress
    from agentrft.jobs.models import find_weights

    world = _world(spec, base_dir, item_id)
    async with AsyncExitStack() as stack:
        with Display(err()) as display:
            find = partial(find_weights, model, base_dir=base_dir)
            live = await open_with_progress(stack, display, spec, base_dir, find, training=False)
        if world.messages:
            note(f"the world of item {world.id}, made for the question: {_question(world)}")
        await _converse(live, world, temperature)


def _world(spec: JobSpec, base_dir: Path, item_id: str | None) -> Item:
    """The item whose fields the tools are built from; an empty one without a job's items."""
    from agentrft.errors import UserError
    from agentrft.jobs.rows import items_of
    from agentrft.types import Item

    split = next((name for name in ("test", "validation", "train") if getattr(spec.data, name)), None)
    if split is None:
        return Item(id="chat", messages=())
    items = items_of(spec, base_dir, split)
    found = next((item for item in items if item_id in (None, item.id)), None)
    if found is None:
        raise UserError(
            f"{split} has no item {item_id!r}; expected one of {items[0].id}, {items[-1].id} …", param="--item"
        )
    return found


async def _converse(live: Live, world: Item, temperature: float) -> None:
    """One episode a question. Without tools what was said stays in the conversation; with tools each question stands
    alone, as the items of training do."""
    from agentrft.rollout import EpisodeKey, GeneratorActor, run_episode
    from agentrft.types import Message, StopReason

    actor = GeneratorActor(generator=live.engine.generator, chat_format=live.chat_format, temperature=temperature)
    agent = replace(live.agent, actor=actor)
    messages = tuple(message for message in world.messages if message.role == "system")
    turn = 0
    while question := await asyncio.to_thread(_ask):
        item = replace(world, messages=(*messages, Message(role="user", content=question)))
        with err().status("thinking …"):
            episode = await run_episode(item, EpisodeKey(run="chat", step=turn, item=item.id, member=0), agent)
        _print(episode)
        if episode.stop_reason is StopReason.ANSWERED and not live.tools.specs:
            messages = episode.messages
        turn += 1


def _ask() -> str:
    try:
        return input("\n> ").strip()
    except EOFError:
        return ""


def _print(episode: Episode) -> None:
    from agentrft.report.terminal import transcript_table

    out().print(transcript_table(episode, prompt="none"))


def _question(world: Item) -> str:
    from agentrft.report.text import one_line

    users = [message.content or "" for message in world.messages if message.role == "user"]
    return one_line(users[-1] if users else "", 70)
