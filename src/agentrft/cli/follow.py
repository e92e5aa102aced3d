"""Watching a job that somebody else runs: the same lines and bar as `agentrft run`, from its events and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from agentrft.cli.console import err, out, safe
from agentrft.cli.desk import Desk, JobView
from agentrft.cli.progress import Display
from agentrft.cli.watch import Watch
from agentrft.report.wording import number
from agentrft.train.log import Notice, StepDone


def follow_job(desk: Desk, job_id: str) -> JobView:
    """The job as it ended; shows what happens until then. Ctrl-C leaves the job alone and raises KeyboardInterrupt."""
    job = desk.job(job_id)
    with Display(err()) as display, Watch(display, job.kind, steps=1) as watch:
        last_step = -1
        for event in desk.follow(job_id):
            if event["type"] == "metrics":
                last_step = _show_steps(desk, job_id, event, last_step, display, watch)
            else:
                watch(Notice(message=event["message"], level=event["level"]))
    return desk.job(job_id)


def tell_end(job: JobView) -> None:
    """What became of the job, and its result's name."""
    style = {"succeeded": "bold", "failed": "bold red"}.get(job.status, "bold yellow")
    out().print(Text(f"{job.id} has {job.status}", style=style), soft_wrap=True)
    if job.error:
        out().print(safe(job.error, "red"), soft_wrap=True)
    if job.result:
        out().print(f"trained model: {job.result}", soft_wrap=True, markup=False)


def _show_steps(
    desk: Desk, job_id: str, event: Mapping[str, Any], last_step: int, display: Display, watch: Watch
) -> int:
    """Draw the steps up to the event's; returns the last one drawn. A step that is repeated after a kill is not."""
    data = event["data"] or {}
    step, steps = data.get("step", 0), data.get("total_steps", 0)
    if step <= last_step:
        return last_step
    for entry in desk.metrics(job_id, after=last_step):
        if entry["step"] > step:
            break
        metrics = {name: value for name, value in entry["metrics"].items() if value is not None}
        if entry["step"] > 0:
            watch(StepDone(step=entry["step"], steps=steps, metrics=metrics))
        if "valid_reward_mean" in metrics:
            line = Text(f"validation after step {entry['step']}: reward ", style="dim")
            display.line(line.append(number(metrics["valid_reward_mean"]), style="bold"))
        last_step = entry["step"]
    return last_step
