"""`agentrft audit JOB`: whether the job's grader can be fooled, before training finds out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from agentrft.cli.console import cannot_write, err, note, out
from agentrft.cli.jobref import read_job
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.audit import AuditPlan, AuditReport, Honest
    from agentrft.jobs.spec import JobSpec
    from agentrft.store import SqlStore
    from agentrft.types import Item

_MOST_EPISODES = 10_000


def audit(
    job: str = typer.Argument(help="A job file, or the id of a stored job.", metavar="JOB"),
    baseline: str | None = typer.Option(
        None, help="Honest episodes: a stored job's id, or a JSONL file of conversations whose `id` names an item."
    ),
    play: int | None = typer.Option(
        None, min=1, max=16, help="Let the job's model play each item this often first: its failures set the limit."
    ),
    reference: bool = typer.Option(False, "--reference", help="Also ask that the items' right answers pass."),
    items: int = typer.Option(10, min=1, max=10, help="How many items."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON on stdout."),
    html: Path | None = typer.Option(None, help="Write the report as one HTML page.", metavar="FILE"),
) -> None:
    """Play adversarial outputs against the job's grader; exit code 1 when it pays for one. Loads no model by itself."""
    from agentrft.jobs.audit import audit_items, audit_plan
    from agentrft.jobs.probe import missing_grader
    from agentrft.store import open_store

    if play:
        _check_play(baseline)
    store = open_store()
    try:
        spec, base_dir = read_job(store, job)
        if spec.method.reinforcement is None:
            raise missing_grader()
        make = partial(audit_plan, spec, base_dir, n_items=items, positive_control=reference)
        honest = _played(store, baseline, audit_items(spec, base_dir)) if baseline else []
        if play:
            honest = asyncio.run(_play(store, spec, base_dir, make().items, play))
        plan = make(honest=honest)
    finally:
        store.close()
    with err().status("auditing the grader …"):
        report = asyncio.run(_audit(spec, base_dir, plan))
    _print(report.to_json(), spec.method.reinforcement.grader.name, as_json, html)
    if not report.passed:
        raise typer.Exit(1)


def _check_play(baseline: str | None) -> None:
    """Raise UserError where `--play` has no torch, or `--baseline` beside it."""
    from agentrft.build import require_torch
    from agentrft.errors import UserError

    if baseline:
        raise UserError(
            f"got --play and --baseline {baseline}; expected one of them, honest episodes come from one place. Next: "
            "leave out --play to use the stored ones",
            param="play",
        )
    require_torch()


async def _play(
    store: SqlStore, spec: JobSpec, base_dir: Path, items: Sequence[Item], samples: int
) -> Sequence[Honest]:
    """Episodes of the job's model on these items, kept as an evaluation job; its id is told."""
    from agentrft.build import pass_threshold_of
    from agentrft.cli.live import open_with_progress
    from agentrft.cli.watch import Watch
    from agentrft.jobs.audit import honest_episodes
    from agentrft.jobs.models import find_weights
    from agentrft.jobs.service import create_job
    from agentrft.train.evaluate import EvalPlan, evaluate
    from agentrft.train.log import RunLog

    async with AsyncExitStack() as stack:
        display = stack.enter_context(Display(err()))
        find = partial(find_weights, spec.model, base_dir=base_dir)
        live = await open_with_progress(stack, display, spec, base_dir, find, training=False)
        stored = create_job(store, spec, base_dir, kind="evaluation", start_from=spec.model)
        plan = EvalPlan(
            run=stored.id,
            split="audit",
            stage=Path(spec.model).name,
            items=items,
            samples=samples,
            pass_threshold=pass_threshold_of(spec),
            penalties=spec.training.penalties,
        )
        store.set_job_status(stored.id, "running")
        try:
            with Watch(display, "honest episodes") as watch:
                log = RunLog(store, stored.id, watch=watch)
                evaluation = await evaluate(plan, live.agent, live.graded(), log)
        except BaseException:
            store.set_job_status(stored.id, "failed")
            raise
        store.set_job_status(stored.id, "succeeded")
    note(f"played: {len(items)} items, {samples} episodes each; again with --baseline {stored.id}")
    pairs = [pair for group in evaluation.groups for pair in zip(group.episodes, group.grades, strict=True)]
    return honest_episodes(pairs, items)


async def _audit(spec: JobSpec, base_dir: Path, plan: AuditPlan) -> AuditReport:
    from agentrft.audit import audit
    from agentrft.build import grader_of
    from agentrft.jobs.probe import missing_grader

    grader = grader_of(spec, base_dir)
    if grader is None:
        raise missing_grader()
    try:
        return await audit(plan, grader)
    finally:
        await grader.close()


def _played(store: SqlStore, baseline: str, items: Sequence[Item]) -> list[Honest]:
    """Honest episodes of these items; raises UserError when the baseline has none."""
    from agentrft.data.rows import read_demonstrations
    from agentrft.errors import UserError
    from agentrft.jobs.audit import honest_conversations, honest_episodes
    from agentrft.jobs.service import find_job

    if Path(baseline).is_file():
        rows = [(row.id, row.messages) for row in read_demonstrations(Path(baseline), param="baseline")]
        found = honest_conversations(rows, items)
    else:
        records = store.list_episodes(find_job(store, baseline), limit=_MOST_EPISODES)
        found = honest_episodes([(record.episode, record.grade) for record in records], items)
    if not found:
        raise UserError(
            f"the baseline {baseline} holds no episode of this job's items; expected a job that played them, or "
            "conversations whose `id` is an item's and which begin with its messages",
            param="baseline",
        )
    return found


def _print(document: dict[str, Any], name: str, as_json: bool, html: Path | None) -> None:
    from agentrft.report.audit import audit_problems, audit_summary, audit_table, write_audit_page

    if html is not None:
        try:
            note(f"report: {write_audit_page(document, name, html)}")
        except OSError as error:
            raise cannot_write("html", html, error) from None
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    out().print(audit_table(document))
    problems = audit_problems(document)
    if problems:
        out().print()
    for shown in problems:
        out().print(shown)
    out().print()
    out().print(Text(audit_summary(document), style="dim"))
    passed = document["passed"]
    verdict = "✓ the audit found nothing to fool this grader with" if passed else "✗ this grader can be fooled"
    out().print(Text(verdict, style="green" if passed else "bold red"))
