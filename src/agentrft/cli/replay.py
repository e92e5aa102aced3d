"""`agentrft tools replay JOB --policy FILE`: what guardrails would have done to recorded episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from agentrft.cli.console import err, out, safe, warn

if TYPE_CHECKING:
    from agentrft.tools.guardrails.replay import ReplayReport

_MOST_EPISODES = 100_000
_OFTEN = 0.05
"""A rule that fires in more of the successful episodes than this is probably wrong."""


def replay(
    job: str = typer.Argument(help="The id of a stored job whose episodes are replayed.", metavar="JOB"),
    policy: Path = typer.Option(help="A YAML file with guardrails, or a job with them.", metavar="FILE"),
    as_json: bool = typer.Option(False, "--json", help="Print the counts as JSON on stdout."),
) -> None:
    """Which recorded calls a guardrail policy would have stopped, in episodes that succeeded and in others."""
    from agentrft.build import pass_threshold_of
    from agentrft.jobs.load import load_guardrails
    from agentrft.jobs.service import find_job, stored_job
    from agentrft.store import open_store
    from agentrft.tools import load_policy
    from agentrft.tools.guardrails.replay import replay_all

    guardrails, base_dir = load_guardrails(policy)
    loaded = load_policy(guardrails, base_dir)
    store = open_store()
    try:
        stored = stored_job(store, find_job(store, job))
        records = store.list_episodes(stored.id, limit=_MOST_EPISODES)
    finally:
        store.close()
    threshold = pass_threshold_of(stored.spec)
    graded = [(one.episode, one.grade.value >= threshold) for one in records if one.grade.value is not None]
    with err().status(f"replaying {len(graded)} episodes …"):
        report = replay_all(graded, loaded)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)


def _print(report: ReplayReport) -> None:
    out().print(Text(f"{report.succeeded} episodes succeeded, {report.failed} failed", style="dim"))
    if not report.rules:
        out().print(Text("no rule would have fired", style="green"))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("rule", overflow="fold")
    for name in ("calls", "of succeeded", "of failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for rule in report.rules:
        shares = (_share(rule.succeeded, report.succeeded), _share(rule.failed, report.failed))
        table.add_row(safe(rule.name), str(rule.calls), *shares)
    out().print(table)
    for rule in report.rules:
        call, episode_id = rule.example.call, rule.example.episode_id
        out().print(safe(f"\n{rule.name}", "bold"))
        out().print(safe(f"  {call.name}({call.arguments})\n  → {rule.example.message}", "dim"), soft_wrap=True)
        out().print(safe(f"  turn {rule.example.turn} of agentrft show {episode_id}", "dim"))
    for rule in report.rules:
        if rule.succeeded > _OFTEN * report.succeeded:
            warn(f"{rule.name} would have stopped calls in {rule.succeeded} of {report.succeeded} successful episodes")


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} ({part / whole:.0%})" if whole else "-"
