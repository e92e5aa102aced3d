"""`agentrft diagnose JOB`: how well the agent does, why it fails, and whether reinforcement can help."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentrft.cli.console import cannot_write, err, note, out, warn
from agentrft.cli.interrupt import INTERRUPTED, Interrupt, interruptible
from agentrft.cli.jobref import is_job_id, read_job
from agentrft.cli.option_group import takes
from agentrft.cli.played_by import PaidBy
from agentrft.cli.progress import Display, Task
from agentrft.report.wording import duration, number

if TYPE_CHECKING:
    from agentrft.diagnose import BaselinePlan, Estimate
    from agentrft.jobs.models import Weights
    from agentrft.jobs.service import StoredJob
    from agentrft.jobs.spec import JobSpec
    from agentrft.rollout import GradedEpisode
    from agentrft.runtime.diagnose import Outcome, Request
    from agentrft.runtime.players import Player
    from agentrft.store import SqlStore
    from agentrft.types import Item

TOO_LITTLE_DATA = 4
"""Exit code."""


@takes("who", PaidBy)
def diagnose(
    job: str = typer.Argument(help="A job file, or the id of a stored job.", metavar="JOB"),
    split: str = typer.Option("train", help="Which of the job's splits; keep `test` for what must stay unseen."),
    items: int = typer.Option(50, min=1, help="Items, drawn at random by the job's seed."),
    samples: int = typer.Option(8, min=1, max=256, help="Episodes per item."),
    again: bool = typer.Option(False, "--again", help="Anew, although these settings have been diagnosed."),
    json_file: Path | None = typer.Option(
        None, "--json", help="Write the figures as JSON; - is stdout.", metavar="FILE"
    ),
    html: Path | None = typer.Option(None, help="Write the report as one HTML page.", metavar="FILE"),
    *,
    who: PaidBy,
) -> None:
    """Play items several times, say what goes wrong and whether to train; after Ctrl-C the same command goes on."""
    from agentrft.jobs.probe import missing_grader
    from agentrft.runtime.diagnose import Request
    from agentrft.runtime.diagnosed import Settings
    from agentrft.store import open_store

    at, price = who.at(), who.paid()
    store = open_store()
    try:
        spec, base_dir = read_job(store, job)
        if spec.method.reinforcement is None:
            raise missing_grader()
        chosen = _items(spec, base_dir, split, items)
        name = at.model if at else who.model or spec.model
        settings = Settings(split=split, items=chosen, samples=samples, model=name, endpoint=at)
        request = Request(
            spec=spec,
            base_dir=base_dir,
            settings=settings,
            find=None if at else partial(_find, name, spec, base_dir),
            also=_stored(store, job),
            price=price,
            again=again,
        )
        with interruptible() as interrupt:
            outcome = asyncio.run(_run(store, request, interrupt))
        code = _tell(store, outcome, json_file, html)
    finally:
        store.close()
    raise typer.Exit(code)


def _items(spec: JobSpec, base_dir: Path, split: str, wanted: int) -> Sequence[Item]:
    """Of the split, drawn by the job's seed, in the order of the file; says when there are fewer."""
    from agentrft.errors import UserError
    from agentrft.jobs.rows import items_of, split_param

    found = items_of(spec, base_dir, split)
    if not found:
        raise UserError(f"the split {split} has no rows; expected items to play", param=split_param(split))
    if len(found) < wanted:
        note(f"{split} has only {len(found)} items: all of them are played")
    if split == "test":
        warn("what is changed after looking at test items can no longer be measured on them")
    places = sorted(random.Random(spec.seed).sample(range(len(found)), min(wanted, len(found))))
    return [found[place] for place in places]


def _find(model: str, spec: JobSpec, base_dir: Path) -> Weights:
    """The weights; warns where they were trained with another bundle."""
    from agentrft.jobs.bundle import bundle_hash
    from agentrft.jobs.models import find_weights

    weights = find_weights(model, base_dir=base_dir)
    if weights.bundle not in (None, bundle_hash(spec, base_dir)):
        warn(f"{model} was trained with another prompt, other tools or guardrails than this job has now")
    return weights


def _stored(store: SqlStore, job: str) -> StoredJob | None:
    from agentrft.jobs.service import find_job, stored_job

    return stored_job(store, find_job(store, job)) if is_job_id(job) else None


async def _run(store: SqlStore, request: Request, interrupt: Interrupt) -> Outcome:
    from agentrft.runtime.diagnose import Watching, run_diagnosis

    with ExitStack() as stack:
        shown = _Shown(stack.enter_context(Display(err())), stack)
        watching = Watching(
            started=shown.started,
            episode=shown.episode,
            estimated=shown.estimated,
            doing=shown.doing,
            should_stop=lambda: interrupt.requested,
        )
        return await run_diagnosis(store, request, watching)


class _Shown:
    """Bars and lines of a diagnosis."""

    def __init__(self, display: Display, stack: ExitStack) -> None:
        self._display = display
        self._stack = stack
        self._inner = stack.enter_context(ExitStack())
        self._task: Task = self._inner.enter_context(display.task("loading the model"))
        self._grades: list[float] = []
        self._before = self._wave = 0

    def started(self, player: Player, plan: BaselinePlan, done: int) -> None:
        self._inner.close()
        went_on = f"; {done} of them are there already" if done else ""
        self._display.line(f"{player.engine}: {plan.n_episodes} episodes{went_on}")
        self._task = self._inner.enter_context(self._display.task("episodes", plan.n_episodes - done))
        self._before = done
        self._wave = min(plan.items_in_flight * plan.samples, plan.n_episodes - done)

    def episode(self, graded: GradedEpisode, done: int) -> None:
        if graded.grade.value is not None:
            self._grades.append(graded.grade.value)
        figures = f"grade {number(sum(self._grades) / len(self._grades))}" if self._grades else ""
        made = done - self._before
        if made < self._wave:
            # All of these run side by side: the time that the first took says nothing of the rate.
            self._task.figures = f"{made} so far · {figures}"
            self._display.update(self._task)
        else:
            self._task.advance(made - self._task.done, figures)

    def estimated(self, made: Estimate) -> None:
        parts = [f"about {duration(made.wall_s)}", f"{made.calls:.0f} tool calls"]
        if made.generated_tokens is not None and made.read_tokens is not None:
            parts.append(f"{made.generated_tokens:,.0f} tokens written, {made.read_tokens:,.0f} read")
        if made.judge_tokens:
            parts.append(f"{made.judge_tokens:,.0f} tokens of judges")
        if made.usd is not None:
            parts.append(f"{made.usd:.2f} USD")
        self._display.line(f"{made.episodes} episodes to go: {', '.join(parts)} (from the first ones)")

    def doing(self, what: str) -> None:
        self._inner.close()
        self._task = self._inner.enter_context(self._display.task(what))


def _tell(store: SqlStore, outcome: Outcome, json_file: Path | None, html: Path | None) -> int:
    """The report; returns the exit code."""
    from agentrft.report.diagnose import diagnosis_view

    document = outcome.document
    if document is None:
        note(f"stopped after {outcome.done} of {outcome.planned} episodes; the same command goes on from there")
        return INTERRUPTED
    if outcome.was_complete:
        note(f"diagnosed before with these settings ({outcome.job.id}); --again plays anew")
    page = _write_pages(store, outcome.job, document, html)
    if json_file is not None and str(json_file) == "-":
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        for part in diagnosis_view(document):
            out().print(part)
        if json_file is not None:
            _write(json_file, json.dumps(document, indent=2, allow_nan=False) + "\n")
    note(f"report: {page}\nepisodes: agentrft show EPISODE; the next question: agentrft decide JOB")
    return TOO_LITTLE_DATA if document["verdict"]["go"] == "unsure" else 0


def _write_pages(store: SqlStore, job: StoredJob, document: dict[str, Any], html: Path | None) -> Path:
    """The page in the job's folder, and where the user wants it; returns the latter, or the former."""
    from agentrft.report.diagnose import episode_ids
    from agentrft.report.diagnose_page import write_diagnosis_page
    from agentrft.runtime.diagnosed import PAGE

    records = {id: store.get_episode(id) for id in episode_ids(document)}
    own = write_diagnosis_page(document, records, job.folder / PAGE)
    if html is None:
        return own
    try:
        return write_diagnosis_page(document, records, html)
    except OSError as error:
        raise cannot_write("html", html, error) from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write("json", path, error) from None
