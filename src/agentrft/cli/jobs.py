"""`agentrft jobs …`: what ran and what runs, here or at a server: look, follow, pause, resume, cancel, take away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from agentrft.cli.console import note, out
from agentrft.cli.desk import SERVER, Desk, Format, JobView, checkpoint_of, open_desk, unpack
from agentrft.cli.interrupt import INTERRUPTED
from agentrft.cli.job_views import (
    print_checkpoints,
    print_episodes,
    print_events,
    print_job,
    print_jobs,
    print_metrics,
)

if TYPE_CHECKING:
    from agentrft.protocols import EpisodeFilter

app = typer.Typer(help="Jobs, here or at a server: look at them, follow and steer them.", no_args_is_help=True)

_EVENTS_SHOWN = 12
_EPISODES_SHOWN = 6

JobId = Annotated[str, typer.Argument(help="A job's id, or the beginning of one.", metavar="ID")]
Server = Annotated[str | None, typer.Option(help=f"Ask this server; {SERVER} by default.", metavar="URL")]


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20, server: Server = None
) -> None:
    """List the newest jobs with their status and result."""
    with open_desk(server) as desk:
        jobs = desk.jobs(limit)
    if jobs:
        print_jobs(jobs)
    else:
        out().print("no jobs yet; `agentrft quickstart` or `agentrft run JOB` makes one")


@app.command("show")
def show_job(job: JobId, server: Server = None) -> None:
    """Show one job: status, figures by step, checkpoints, last events, some of its episodes."""
    from agentrft.protocols import EpisodeFilter

    with open_desk(server) as desk:
        job_id = desk.find(job)
        print_job(desk.job(job_id))
        print_metrics(desk.metrics(job_id))
        print_checkpoints(desk.checkpoints(job_id))
        events = desk.events(job_id, _EVENTS_SHOWN)
        if events:
            out().print(Text("\nlast events", style="bold"))
        print_events(events)
        episodes = desk.episodes(job_id, EpisodeFilter(), _EPISODES_SHOWN)
        if episodes:
            out().print(Text("\nsome episodes (agentrft show ID)", style="bold"))
        print_episodes(episodes)


@app.command("events")
def show_events(
    job: JobId,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest ones.")] = 50,
    server: Server = None,
) -> None:
    """Show what happened to a job, oldest first."""
    with open_desk(server) as desk:
        print_events(desk.events(desk.find(job), limit))


@app.command("follow")
def follow(job: JobId, server: Server = None) -> None:
    """Watch a job until it has ended; Ctrl-C leaves it alone. Exit code 1 when it has failed."""
    with open_desk(server) as desk:
        follow_to_end(desk, desk.find(job))


@app.command("pause")
def pause(job: JobId, server: Server = None) -> None:
    """Write a checkpoint and pause; waits ten seconds for it."""
    with open_desk(server) as desk:
        found = desk.pause(desk.find(job))
    if found.status != "paused":
        note("it pauses after what it is doing now; `agentrft jobs show` says when")
    _say(found)


@app.command("resume")
def resume(job: JobId, server: Server = None) -> None:
    """Queue a paused job again; it goes on from its newest checkpoint."""
    with open_desk(server) as desk:
        found = desk.resume(desk.find(job))
    _say(found)
    if found.is_run_here and found.status == "queued":
        out().print(f"no server runs this job; go on with it: agentrft run {found.id}", soft_wrap=True)


@app.command("cancel")
def cancel(job: JobId, server: Server = None) -> None:
    """End a job for good; its checkpoints stay."""
    with open_desk(server) as desk:
        _say(desk.cancel(desk.find(job)))


@app.command("download")
def download(
    job: JobId,
    checkpoint: Annotated[
        str, typer.Option(help="Step or id of a checkpoint; `result` is what the job ended with.", metavar="STEP")
    ] = "result",
    format: Annotated[str, typer.Option(help="`adapter` (PEFT) or `merged` (a whole model).")] = "adapter",
    to: Annotated[
        Path | None, typer.Option(help="New folder; named after the job by default.", metavar="FOLDER")
    ] = None,
    server: Server = None,
) -> None:
    """Take weights away: a PEFT adapter, or a whole model, as safetensors."""
    with open_desk(server) as desk:
        take_away(desk, desk.find(job), checkpoint, _format(format), to)


@app.command("episodes")
def episodes(
    job: JobId,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Such as `step=3` or `min_reward=0.5`; may be given several times.", metavar="FIELD=VALUE"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="All of them with traces, as JSONL on stdout.")] = False,
    server: Server = None,
) -> None:
    """List episodes, or write all of them in OpenAI's trace shape."""
    from agentrft.jobs.episodes import filter_of

    wanted = filter_of(where or ())
    with open_desk(server) as desk:
        _write_episodes(desk, desk.find(job), wanted, None if jsonl else limit)


def follow_to_end(desk: Desk, job_id: str) -> JobView:
    """The job as it ended, told; ends the program with 1 when it has failed, with 130 on Ctrl-C."""
    from agentrft.cli.follow import follow_job, tell_end

    try:
        job = follow_job(desk, job_id)
    except KeyboardInterrupt:
        note(f"the job goes on; `agentrft jobs follow {job_id}` watches it, `agentrft jobs cancel {job_id}` ends it")
        raise typer.Exit(INTERRUPTED) from None
    tell_end(job)
    if job.status == "failed":
        raise typer.Exit(1)
    return job


def take_away(desk: Desk, job_id: str, checkpoint: str, format: Format, to: Path | None) -> None:
    """Write the weights into a new folder, and say where."""
    chosen = checkpoint_of([] if checkpoint == "result" else desk.checkpoints(job_id), checkpoint)
    folder = to or Path(f"{job_id.removeprefix('ftjob-')[:8]}-{checkpoint}-{format}")
    for path in unpack(desk.weights(job_id, chosen, format), folder):
        out().print(f"{path}  {path.stat().st_size} bytes", soft_wrap=True, markup=False)


def _write_episodes(desk: Desk, job_id: str, wanted: EpisodeFilter, limit: int | None) -> None:
    if limit is None:
        for line in desk.export(job_id, wanted):
            sys.stdout.write(line)
        return
    found = desk.episodes(job_id, wanted, limit)
    if not found:
        note("no such episodes")
    print_episodes(found)


def _say(job: JobView) -> None:
    out().print(f"{job.id} is {job.status}", soft_wrap=True, markup=False)


def _format(given: str) -> Format:
    from agentrft.errors import UserError

    if given == "adapter" or given == "merged":
        return given
    raise UserError(f"--format is {given!r}; expected `adapter` or `merged`. Name one of them", param="--format")
