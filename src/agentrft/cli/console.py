"""Where the command line writes: results on stdout, everything else (progress, notes, errors) on stderr."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rich.console import Console
from rich.text import Text

from agentrft.errors import UserError
from agentrft.report.text import printable


@cache
def out() -> Console:
    """For results: what one would pipe into a file."""
    return Console(highlight=False)


@cache
def err() -> Console:
    """For people: progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def safe(text: str, style: str = "") -> Text:
    """Text of any origin, ready to print: no escape sequences, no markup."""
    return Text(printable(text), style=style)


def warn(message: str) -> None:
    """A yellow line for people."""
    err().print(safe(f"warning: {message}", "yellow"), soft_wrap=True)


def note(message: str) -> None:
    """A quiet line for people."""
    err().print(safe(message, "dim"), soft_wrap=True)


def print_error(message: str, *, param: str | None = None) -> None:
    """One short red message, without a traceback; `param` names the field when the message does not."""
    text = Text("error: ", style="bold red")
    text.append(printable(message), style="red")
    if param and param not in message:
        text.append(f"\n  in: {param}", style="dim")
    err().print(text, soft_wrap=True)


def cannot_write(option: str, path: Path, error: OSError) -> UserError:
    """The user's mistake that a file was named (`--json`) which the disk refuses."""
    return UserError(
        f"--{option} {path} cannot be written: {error.strerror}; expected a path in a folder of yours. Next: name "
        "another one",
        param=option,
    )
