"""The `agentrft` program: its commands, and what an error looks like.

Exit codes: 0 ok, 1 a check or an outside part failed, 2 user error, 3 no reliable change, 4 too little data to say,
5 blocked, 130 interrupted; a bug ends with its traceback.
"""

from __future__ import annotations

import os
import sys

import typer

from agentrft.cli import (
    apply,
    audit,
    chat,
    check,
    climb,
    collect,
    decide,
    diagnose,
    doctor,
    evaluate,
    grade,
    jobs,
    keys,
    optimise,
    pairs,
    probe,
    quickstart,
    run,
    serve,
    show,
    tools,
)
from agentrft.cli.console import print_error
from agentrft.errors import BoundaryError, UserError

app = typer.Typer(
    name="agentrft",
    help="Diagnose, optimise and reinforcement-fine-tune tool-using LLM agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `agentrft quickstart`. Everything is explained in docs/cli.md.",
)

app.command("quickstart")(quickstart.quickstart)
app.command("climb")(climb.climb)
app.command("check")(check.check)
app.command("audit")(audit.audit)
app.command("diagnose")(diagnose.diagnose)
app.command("optimise")(optimise.optimise)
app.command("apply")(apply.apply)
app.command("decide")(decide.decide)
app.command("grade")(grade.grade)
app.add_typer(tools.app, name="tools")
app.command("run")(run.run)
app.command("pairs")(pairs.pairs)
app.command("collect")(collect.collect)
app.command("eval")(evaluate.evaluate)
app.add_typer(jobs.app, name="jobs")
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.command("show")(show.show)
app.command("probe")(probe.probe)
app.command("chat")(chat.chat)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        import agentrft

        typer.echo(agentrft.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line in `sys.argv`; ends the process with the exit code."""
    # Before torch is loaded, and for the processes that we start: its threads spin while they wait for each other, by
    # default so long that one other busy program makes small products six times slower; with this three times. Alone it
    # costs some 5 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except UserError as error:
        print_error(error.message, param=error.param)
        sys.exit(2)
    except BoundaryError as error:
        print_error(f"{error.boundary}: {error}")
        sys.exit(1)
