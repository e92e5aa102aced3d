"""`agentrft jobs list` and `agentrft jobs show ID`: what ran, how far it is, what it left behind."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from agentrft.cli.console import out, safe
from agentrft.report.wording import number

app = typer.Typer(help="Stored jobs: list them, or show one.", no_args_is_help=True)

_STATUS_STYLES = {"succeeded": "green", "failed": "red", "running": "cyan", "paused": "yellow"}
_EVENTS_SHOWN = 12
_STEPS_SHOWN = 16
_EPISODES_SHOWN = 6
_COLUMNS = (
    ("reward_mean", "reward"),
    ("success_rate", "success"),
    ("calls_mean", "calls"),
    ("signal_frac", "signal"),
    ("nll", "nll"),
    ("margin", "margin"),
    ("preferred_frac", "preferred"),
    ("valid_loss", "held-out loss"),
    ("valid_reward_mean", "validation"),
)


@app.command("list")
def list_jobs(limit: int = typer.Option(20, min=1, help="How many, newest first.")) -> None:
    """List the newest jobs with their status and result."""
    from agentrft.store import open_store

    store = open_store()
    try:
        jobs = store.list_jobs(limit=limit)
    finally:
        store.close()
    if not jobs:
        out().print("no jobs yet; `agentrft quickstart` or `agentrft run JOB` makes one")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, width in (("job", 15), ("what", 13), ("status", 9), ("created", 11)):
        table.add_column(name, no_wrap=True, min_width=width)
    table.add_column("model", overflow="fold")
    for job in jobs:
        model = job.get("fine_tuned_model") or job.get("start_from") or job.get("model") or ""
        table.add_row(job["id"][:15], job.get("kind", ""), _status(job), _when(job["created_at"])[5:], safe(str(model)))
    out().print(table)


@app.command("show")
def show_job(job: str = typer.Argument(help="A job's id, or the beginning of one.", metavar="ID")) -> None:
    """Show one job: status, figures by step, checkpoints, last events, some of its episodes."""
    from agentrft.jobs.service import find_job, job_folder
    from agentrft.store import open_store

    store = open_store()
    try:
        job_id = find_job(store, job)
        _print_header(store.get_job(job_id), str(job_folder(job_id)))
        _print_metrics(store.list_metrics(job_id))
        _print_checkpoints(store.list_checkpoints(job_id))
        _print_events(store.list_events(job_id))
        records = store.list_episodes(job_id, limit=_EPISODES_SHOWN)
    finally:
        store.close()
    if records:
        out().print(Text("\nsome episodes (agentrft show ID)", style="bold"))
    for record in records:
        reward = "no grade" if record.reward is None else f"reward {number(record.reward)}"
        place = f"{record.stage} on {record.extra.get('split', record.phase)}, step {record.episode.step}"
        calls = f"{record.episode.n_calls} call{'' if record.episode.n_calls == 1 else 's'}"
        out().print(safe(f"  {record.episode.id[:15]}  {reward}, {calls}  ({place})"))


def _print_header(job: Mapping[str, Any], folder: str) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("job", job["id"])
    table.add_row("status", _status(job))
    table.add_row("what", safe(f"{job.get('kind')} of {job.get('start_from') or job.get('model')}"))
    if job.get("fine_tuned_model"):
        table.add_row("result", safe(str(job["fine_tuned_model"])))
    if job.get("error"):
        table.add_row("error", safe(str(job["error"].get("message", "")), "red"))
    table.add_row("created", _when(job["created_at"]))
    table.add_row("folder", folder)
    out().print(table)


def _print_metrics(entries: Sequence[Mapping[str, Any]]) -> None:
    columns = [(name, title) for name, title in _COLUMNS if any(name in entry["metrics"] for entry in entries)]
    if not columns:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("step", justify="right")
    for _, title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for entry in entries[-_STEPS_SHOWN:]:
        values = (entry["metrics"].get(name) for name, _ in columns)
        table.add_row(str(entry["step"]), *("" if value is None else f"{value:.3f}" for value in values))
    out().print()
    out().print(table)
    if len(entries) > _STEPS_SHOWN:
        out().print(Text(f"  {len(entries) - _STEPS_SHOWN} earlier steps", style="dim"))


def _print_checkpoints(checkpoints: Sequence[Mapping[str, Any]]) -> None:
    if checkpoints:
        out().print(Text("\ncheckpoints", style="bold"))
    for checkpoint in checkpoints:
        out().print(safe(f"  step {checkpoint['step']:>4}  {checkpoint['path']}"), soft_wrap=True)


def _print_events(events: Sequence[Mapping[str, Any]]) -> None:
    if events:
        out().print(Text("\nlast events", style="bold"))
    for event in events[-_EVENTS_SHOWN:]:
        style = {"warn": "yellow", "error": "red"}.get(event["level"], "")
        line = Text(f"  {_when(event['created_at'])}  ", style="dim").append_text(safe(event["message"], style))
        out().print(line, soft_wrap=True)


def _status(job: Mapping[str, Any]) -> Text:
    return Text(job["status"], style=_STATUS_STYLES.get(job["status"], ""))


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
