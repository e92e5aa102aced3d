"""The search for edits as one piece of a climb: one engine for all of it, and it can be stopped between its batches."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from agentrft import build
from agentrft.errors import UserError
from agentrft.jobs.models import find_weights
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.optimise import OpenAgent, Task, Watching, agents_over, optimisation_job, optimise_job, told_tools
from agentrft.optimise import OptimisePlan
from agentrft.protocols import Grader
from agentrft.rollout import Agent
from agentrft.store import SqlStore

LEAST = 500
"""Episodes that a search needs: with fewer, little is left for candidates behind the baseline and the confirmation."""


async def search_edits(
    store: SqlStore,
    task: Task,
    budget: int,
    *,
    check: Callable[[], None],
    move_to: Callable[[int], None],
    tell: Callable[[str], None],
    load: build.LoadEngine | None,
) -> dict[str, Any] | str:
    """The report of an optimisation of the job with its own model; why there is none where items do not reach.

    `check` is called before every batch of episodes, and stops the search by raising. Called again it goes on.
    """
    plan = OptimisePlan(budget=budget, seed=task.spec.seed, pass_threshold=build.pass_threshold_of(task.spec))
    try:
        task.split(plan)
    except UserError as error:
        if error.code != "too_little_data":
            raise
        return error.message
    job = optimisation_job(store, task, plan, task.spec.model)
    tools = await told_tools(task)
    done = itertools.count(1)
    async with AsyncExitStack() as stack:
        weights = find_weights(task.spec.model, base_dir=task.base_dir)
        engine = await (load or build.load_engine)(task.spec, weights, False)
        stack.push_async_callback(engine.close)
        open_agent = _checked(agents_over(task.base_dir, weights, engine), check)
        watching = Watching(tell=tell, on_episode=lambda: move_to(next(done)))
        return await optimise_job(store, job, task, plan, open_agent, tools, watching=watching)


def _checked(open_agent: OpenAgent, check: Callable[[], None]) -> OpenAgent:
    @asynccontextmanager
    async def opened(spec: JobSpec) -> AsyncIterator[tuple[Agent, Grader]]:
        check()
        async with open_agent(spec) as pair:
            yield pair

    return opened
