"""Jobs, metrics, checkpoints, events and episodes as tables and lines."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from agentrft.cli.console import out, safe
from agentrft.cli.desk import JobView
from agentrft.report.wording import number

_STATUS_STYLES = {"succeeded": "green", "failed": "red", "running": "cyan", "paused": "yellow"}
_LEVEL_STYLES = {"warn": "yellow", "error": "red"}
_STEPS_SHOWN = 16
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


def print_jobs(jobs: Sequence[JobView]) -> None:
    """One line a job, within 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, width in (("job", 15), ("what", 13), ("status", 9), ("created", 11)):
        table.add_column(name, no_wrap=True, min_width=width)
    table.add_column("model", overflow="fold")
    for job in jobs:
        model = safe(job.result or job.model)
        table.add_row(job.id[:15], job.kind, status_text(job.status), when(job.created_at)[5:], model)
    out().print(table)


def print_job(job: JobView) -> None:
    """What it is and how it stands."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("job", job.id)
    table.add_row("status", status_text(job.status))
    table.add_row("what", safe(f"{job.kind} of {job.model}"))
    if job.result:
        table.add_row("result", safe(job.result))
    if job.error:
        table.add_row("error", safe(job.error, "red"))
    table.add_row("created", when(job.created_at))
    if job.folder is not None:
        table.add_row("folder", str(job.folder))
    out().print(table)


def print_metrics(entries: Sequence[Mapping[str, Any]]) -> None:
    """The last steps' main figures."""
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


def print_checkpoints(checkpoints: Sequence[Mapping[str, Any]]) -> None:
    """Step, and where it is or what it is called."""
    if checkpoints:
        out().print(Text("\ncheckpoints", style="bold"))
    for one in reversed(checkpoints):
        place = one.get("path") or one["fine_tuned_model_checkpoint"]
        out().print(safe(f"  step {one['step_number']:>4}  {place}"), soft_wrap=True)


def print_events(events: Sequence[Mapping[str, Any]]) -> None:
    """Time and message, oldest first."""
    for event in events:
        style = _LEVEL_STYLES.get(event["level"], "")
        line = Text(f"  {when(event['created_at'])}  ", style="dim").append_text(safe(event["message"], style))
        out().print(line, soft_wrap=True)


def print_episodes(episodes: Sequence[Mapping[str, Any]]) -> None:
    """Id, reward, calls, and where it was played."""
    for one in episodes:
        reward = "no grade" if one["reward"] is None else f"reward {number(one['reward'])}"
        calls = f"{one['n_calls']} call{'' if one['n_calls'] == 1 else 's'}"
        place = f"{one['stage']} on {one['split'] or one['phase']}, step {one['step']}"
        out().print(safe(f"  {one['id'][:15]}  {reward}, {calls}  ({place})"))


def status_text(status: str) -> Text:
    """The status in its colour."""
    return Text(status, style=_STATUS_STYLES.get(status, ""))


def when(seconds: float) -> str:
    """Local time to the minute."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
