"""`agentrft check JOB`: everything that can go wrong with a job before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from agentrft.cli.console import err, out, print_error, safe, warn


def check(job: Path = typer.Argument(help="The job file (YAML).", metavar="JOB")) -> None:
    """Check a job's files, rows, grader, tools, model and lengths. Loads no model; needs no torch."""
    from agentrft.jobs.check import check_job
    from agentrft.jobs.load import load_job

    spec, base_dir = load_job(job)
    with err().status("checking …"):
        report = check_job(spec, base_dir)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in report.facts:
        table.add_row(label, safe(value))
    out().print(table)
    for warning in report.warnings:
        warn(warning)
    for problem in report.problems:
        print_error(problem.message, param=problem.param)
    if report.problems:
        raise typer.Exit(2)
    out().print(Text("✓ the job can run", style="green"))
