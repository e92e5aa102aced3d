"""`agentrft doctor`: what this machine has, which numbers format training would use, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from agentrft.cli.console import err, out

if TYPE_CHECKING:
    from agentrft.runtime.machine import Fact

_MARKS = {"ok": Text("✓", style="green"), "warn": Text("!", style="yellow"), "bad": Text("✗", style="red")}


def doctor() -> None:
    """Show cores, instruction sets, GPU, versions, models, store and disk; exit 1 when something must be mended."""
    from agentrft.runtime.machine import examine

    with err().status("looking …"):
        sections = examine()
    for title, facts in sections:
        out().print(Text(title, style="bold"))
        out().print(_table(facts))
        out().print()
    bad = [fact for _, facts in sections for fact in facts if fact.state == "bad"]
    if bad:
        raise typer.Exit(1)


def _table(facts: list[Fact]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(style="dim", no_wrap=True, min_width=16)
    table.add_column(overflow="fold")
    for fact in facts:
        value = Text(fact.value)
        if fact.advice:
            value.append(f"\n{fact.advice}", style="yellow" if fact.state == "warn" else "red")
        table.add_row(_MARKS[fact.state], fact.name, value)
    return table
