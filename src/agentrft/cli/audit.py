"""`agentrft audit JOB`: whether the job's grader can be fooled, before training finds out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from agentrft.cli.console import err, note, out
from agentrft.cli.jobref import read_job

if TYPE_CHECKING:
    from agentrft.audit import AuditPlan, AuditReport, Honest
    from agentrft.graders import AnySpec
    from agentrft.jobs.spec import JobSpec
    from agentrft.store import SqlStore
    from agentrft.types import Item, Message, Sample

_SPLITS = ("train", "validation", "test")
_MOST_EPISODES = 10_000


def audit(
    job: str = typer.Argument(help="A job file, or the id of a stored job.", metavar="JOB"),
    baseline: str | None = typer.Option(
        None, help="Honest episodes: a stored job's id, or a JSONL file of conversations whose `id` names an item."
    ),
    items: int = typer.Option(10, min=1, max=10, help="How many items."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON on stdout."),
    html: Path | None = typer.Option(None, help="Write the report as one HTML page.", metavar="FILE"),
) -> None:
    """Play adversarial outputs against the job's grader; exit code 1 when it pays for one. Loads no model."""
    from agentrft.jobs.probe import missing_grader
    from agentrft.store import open_store

    store = open_store()
    try:
        spec, base_dir = read_job(store, job)
        if spec.method.reinforcement is None:
            raise missing_grader()
        plan = _plan(store, spec, base_dir, baseline, items)
    finally:
        store.close()
    with err().status("auditing the grader …"):
        report = asyncio.run(_audit(spec, base_dir, plan))
    _print(report.to_json(), spec.method.reinforcement.grader.name, as_json, html)
    if not report.passed:
        raise typer.Exit(1)


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


def _plan(store: SqlStore, spec: JobSpec, base_dir: Path, baseline: str | None, n_items: int) -> AuditPlan:
    """Items of the baseline come first, then those with demonstrations."""
    from agentrft.audit import AuditPlan
    from agentrft.build import pass_threshold_of

    known = _items(spec, base_dir)
    honest = _played(store, baseline, known) if baseline else []
    demonstrations = _demonstrated(spec, base_dir, known)
    played = dict.fromkeys(one.item_id for one in [*honest, *demonstrations])
    by_id = {item.id: item for item in known}
    chosen = [by_id[id_] for id_ in played] + [item for item in known if item.id not in played]
    reinforcement = spec.method.reinforcement
    return AuditPlan(
        items=chosen[:n_items],
        pass_threshold=pass_threshold_of(spec),
        honest=honest,
        demonstrations=demonstrations,
        asks_model=reinforcement is not None and asks_model(reinforcement.grader),
        seed=spec.seed,
    )


def asks_model(spec: AnySpec) -> bool:
    """Whether a judge takes part in the grade."""
    from agentrft.graders import LabelModelSpec, MultiSpec, ScoreModelSpec

    if isinstance(spec, MultiSpec):
        return any(asks_model(part) for part in spec.graders.values())
    return isinstance(spec, ScoreModelSpec | LabelModelSpec)


def _items(spec: JobSpec, base_dir: Path) -> list[Item]:
    """Items of the job's splits, training first; of several with one id the first."""
    from agentrft.jobs.rows import items_of

    splits = [split for split in _SPLITS if getattr(spec.data, split)]
    found: dict[str, Item] = {}
    for split in splits or ["train"]:
        for item in items_of(spec, base_dir, split):
            found.setdefault(item.id, item)
    return list(found.values())


def _demonstrated(spec: JobSpec, base_dir: Path, items: Sequence[Item]) -> list[Honest]:
    from agentrft.jobs.rows import demonstrations_of

    if spec.data.demonstrations is None:
        return []
    return _varied(_conversations([(one.id, one.messages) for one in demonstrations_of(spec, base_dir)], items))


def _varied(honest: Sequence[Honest]) -> list[Honest]:
    """Taking turns between episodes of one call, of two, and so on: files are often sorted by kind."""
    by_calls: dict[int, list[Honest]] = {}
    for one in honest:
        by_calls.setdefault(one.sample.n_calls, []).append(one)
    turns = zip_longest(*(by_calls[n] for n in sorted(by_calls)))
    return [one for turn in turns for one in turn if one is not None]


def _played(store: SqlStore, baseline: str, items: Sequence[Item]) -> list[Honest]:
    """Honest episodes of these items; raises UserError when the baseline has none."""
    from agentrft.audit import Honest
    from agentrft.data.rows import read_demonstrations
    from agentrft.errors import UserError
    from agentrft.graders import sample_from_episode
    from agentrft.jobs.service import find_job
    from agentrft.types import StopReason

    if Path(baseline).is_file():
        rows = [(row.id, row.messages) for row in read_demonstrations(Path(baseline), param="baseline")]
        found = _conversations(rows, items)
    else:
        by_id = {item.id: item for item in items}
        records = store.list_episodes(find_job(store, baseline), limit=_MOST_EPISODES)
        found = [
            Honest(
                item_id=record.episode.item_id,
                sample=sample_from_episode(record.episode),
                reward=record.grade.value,
            )
            for record in records
            if record.episode.stop_reason is not StopReason.FAULT
            and (item := by_id.get(record.episode.item_id)) is not None
            and begins_with(record.episode.messages, item.messages)
        ]
    if not found:
        raise UserError(
            f"the baseline {baseline} holds no episode of this job's items; expected a job that played them, or "
            "conversations whose `id` is an item's and which begin with its messages",
            param="baseline",
        )
    return found


def _conversations(rows: Sequence[tuple[str, tuple[Message, ...]]], items: Sequence[Item]) -> list[Honest]:
    """Whole conversations about these items as honest episodes."""
    from agentrft.audit import Honest

    by_id = {item.id: item for item in items}
    return [
        Honest(item_id=id_, sample=sample_of(messages))
        for id_, messages in rows
        if (item := by_id.get(id_)) is not None and begins_with(messages, item.messages)
    ]


def begins_with(messages: Sequence[Message], prompt: Sequence[Message]) -> bool:
    """Whether a conversation is about this prompt; system messages, which a job may add, do not matter."""

    def said(of: Sequence[Message]) -> list[Message]:
        return [message for message in of if message.role != "system"]

    return said(messages)[: len(said(prompt))] == said(prompt)


def sample_of(messages: tuple[Message, ...]) -> Sample:
    """What graders see of a conversation that ends with the final answer."""
    from agentrft.types import Sample

    n_calls = sum(len(message.tool_calls) for message in messages)
    return Sample(output_text=messages[-1].content or "", messages=messages, n_calls=n_calls)


def _print(document: dict[str, Any], name: str, as_json: bool, html: Path | None) -> None:
    from agentrft.report.audit import audit_problems, audit_summary, audit_table, write_audit_page

    if html is not None:
        note(f"report: {write_audit_page(document, name, html)}")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    out().print(audit_table(document))
    problems = audit_problems(document)
    if problems:
        out().print()
        out().print(problems, end="")
    out().print()
    out().print(Text(audit_summary(document), style="dim"))
    passed = document["passed"]
    verdict = "✓ the audit found nothing to fool this grader with" if passed else "✗ this grader can be fooled"
    out().print(Text(verdict, style="green" if passed else "bold red"))
