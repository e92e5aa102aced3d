"""`agentrft optimise JOB`: a better prompt, tool descriptions, outputs and guardrails; `agentrft apply` writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from agentrft.cli.console import err, note, out
from agentrft.cli.option_group import takes
from agentrft.cli.played_by import PlayedBy
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.ladder.optimise import Further, OpenAgent, Task
    from agentrft.optimise import OptimisePlan
    from agentrft.protocols import ChatEndpoint

NO_RELIABLE_CHANGE, TOO_LITTLE_DATA, BLOCKED = 3, 4, 5
"""Exit codes."""


@takes("who", PlayedBy)
def optimise(
    job: Path = typer.Argument(help="The job file (YAML); it is read, never written.", metavar="JOB"),
    budget: int = typer.Option(1200, min=200, help="Episodes in all, those that confirm the result among them."),
    space: str = typer.Option("prompt,tools,outputs,guards,demos", help="What may change."),
    lock: list[str] = typer.Option(
        [], help="What may not: a glob such as `tool:refund:*`; may be given several times."
    ),
    reflection: str | None = typer.Option(
        None, help="OpenAI-compatible API whose model proposes rewrites as well: URL#MODEL.", metavar="URL#MODEL"
    ),
    seed: int = typer.Option(0, min=0, help="Of the search."),
    json_file: Path | None = typer.Option(
        None, "--json", help="Write the report as JSON; - is stdout.", metavar="FILE"
    ),
    *,
    who: PlayedBy,
) -> None:
    """Search for edits that help, and confirm them on untouched items; after Ctrl-C the same command goes on."""
    from agentrft.errors import BoundaryError, UserError
    from agentrft.jobs.check import check_job
    from agentrft.jobs.load import load_job
    from agentrft.jobs.probe import missing_grader
    from agentrft.ladder.optimise import Task
    from agentrft.optimise import OptimisePlan
    from agentrft.optimise.edit import read_kinds

    kinds = read_kinds(kind.strip() for kind in space.split(",") if kind.strip())
    at = who.at()
    spec, base_dir = load_job(job)
    if spec.method.reinforcement is None:
        raise missing_grader()
    with err().status("checking the job …"):
        report = check_job(spec, base_dir)
    if at is not None:  # the job's own model does not play
        report.problems = [problem for problem in report.problems if problem.param != "model"]
    report.raise_problems()
    plan = OptimisePlan(
        budget=budget,
        kinds=kinds,
        locks=lock,
        seed=seed,
        pass_threshold=spec.method.reinforcement.grader.pass_threshold,
    )
    try:
        code = asyncio.run(_run(Task.read(job, spec), plan, at, who.model, _reflection(reflection), json_file))
    except UserError as error:
        if error.code != "too_little_data":
            raise
        err().print(Text(error.message, style="yellow"), soft_wrap=True)
        raise typer.Exit(TOO_LITTLE_DATA) from None
    except BoundaryError as error:
        err().print(Text(f"blocked: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(BLOCKED) from None
    except KeyboardInterrupt:
        note("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    raise typer.Exit(code)


async def _run(
    task: Task,
    plan: OptimisePlan,
    at: ChatEndpoint | None,
    model: str | None,
    reflection: ChatEndpoint | None,
    json_file: Path | None,
) -> int:
    from agentrft.ladder.optimise import Watching, found_already, optimisation_job, optimise_job, told_tools
    from agentrft.store import open_store

    name = at.model if at else model or task.spec.model
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(open_store()))
        addresses = [one and f"{one.base_url}#{one.model}" for one in (at, reflection)]
        job = optimisation_job(store, task, plan, name, *addresses)
        if (known := found_already(store, job)) is not None:
            return _tell(known, job.folder, json_file)
        display = stack.enter_context(Display(err()))
        open_agent = await _opened(stack, display, task, at, name)
        tools = await told_tools(task)
        further = await _further(stack, reflection)
        bar = stack.enter_context(display.task("episodes", plan.budget))
        document = await optimise_job(
            store,
            job,
            task,
            plan,
            open_agent,
            tools,
            further=further,
            watching=Watching(tell=lambda text: display.line(Text(text, style="dim")), on_episode=bar.advance),
        )
    return _tell(document, job.folder, json_file)


async def _opened(stack: AsyncExitStack, display: Display, task: Task, at: ChatEndpoint | None, name: str) -> OpenAgent:
    """Who plays."""
    from agentrft import build
    from agentrft.jobs.models import find_weights
    from agentrft.ladder.optimise import agents_over

    if at is not None:
        return agents_over(task.base_dir, at)
    with display.task("loading the model"):
        weights = await asyncio.to_thread(find_weights, name, base_dir=task.base_dir)
        engine = await build.load_engine(task.spec, weights, False)
    stack.push_async_callback(engine.close)
    display.line(Text(f"{name}: {engine.dtype} on {engine.device}", style="dim"))
    return agents_over(task.base_dir, weights, engine)


async def _further(stack: AsyncExitStack, reflection: ChatEndpoint | None) -> Further | None:
    from agentrft.engines.openai_chat import open_judge
    from agentrft.optimise.propose.reflect import reflect

    if reflection is None:
        return None
    model = open_judge(reflection, "--reflection")
    stack.push_async_callback(model.close)

    async def further(evidence: Any) -> Sequence[Any]:
        return await reflect(evidence, model)

    return further


def _reflection(given: str | None) -> ChatEndpoint | None:
    from agentrft.errors import UserError
    from agentrft.protocols import ChatEndpoint

    if given is None:
        return None
    url, hash_, model = given.rpartition("#")
    if not hash_ or not url.startswith(("http://", "https://")) or not model:
        raise UserError(
            f"--reflection is {given!r}, expected address and model such as http://localhost:8000/v1#qwen3-4b",
            param="--reflection",
        )
    return ChatEndpoint(model=model, base_url=url, temperature=0.9)


def _tell(document: dict[str, Any], folder: Path, json_file: Path | None) -> int:
    """Show what was found; the exit code."""
    import json

    from agentrft.ladder.optimise import PATCH
    from agentrft.report.optimise import figures_table, headline, hunk_lines, lede, write_optimise_page

    patch = folder / PATCH
    adopted = document["verdict"] == "adopted"
    code = 0 if adopted else NO_RELIABLE_CHANGE
    page = write_optimise_page(document, patch.read_text("utf-8") if adopted else None, folder / "report.html")
    if json_file is not None:
        text = json.dumps(document, indent=2) + "\n"
        if str(json_file) == "-":
            typer.echo(text, nl=False)
            return code
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(text, encoding="utf-8")
    style = "bold green" if adopted else "bold"
    out().print(Text(headline(document), style=style), soft_wrap=True)
    out().print(Text(lede(document)))
    table = figures_table(document)
    if table is not None:
        out().print(table)
    for line in hunk_lines(document):
        out().print(line, soft_wrap=True)
    out().print(f"report: {page}", soft_wrap=True, markup=False)
    if adopted:
        out().print(f"patch:  {patch}", soft_wrap=True, markup=False)
        out().print(f"next:   agentrft apply {document['id']}", soft_wrap=True, markup=False)
    return code
