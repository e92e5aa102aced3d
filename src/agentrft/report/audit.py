"""A grader audit for people: a terminal table and one HTML page, both from the audit's JSON document.

Evidence is hostile text: it is made printable for terminals, and escaped by Jinja2 in the page, which runs no script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from agentrft.report.templating import resource, templates
from agentrft.report.text import one_line, printable
from agentrft.writing import write_whole

_MARKS = {
    "safe": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "warning": ("!", "yellow"),
    "skipped": ("–", "dim"),
}


def audit_table(document: Mapping[str, Any]) -> Table:
    """One line a probe: verdict, highest grade, what it may be at most, item, and what was graded."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    table.add_column("", no_wrap=True, min_width=1)
    table.add_column("probe", no_wrap=True, min_width=18)
    table.add_column("worst", justify="right", no_wrap=True, min_width=5)
    table.add_column("limit", justify="right", no_wrap=True, min_width=5)
    table.add_column("item", no_wrap=True, min_width=9, max_width=12)
    table.add_column("what was graded", no_wrap=True, overflow="ellipsis", ratio=1)
    for line in document["lines"]:
        mark, style = _MARKS[line["verdict"]]
        shown = line["evidence"] or line["detail"] or line["tries"]
        table.add_row(
            Text(mark, style=style),
            Text(line["name"], style=style if line["verdict"] != "safe" else ""),
            _number(line["worst"]),
            _number(line["limit"]),
            Text(one_line(line["item"] or "", 12), style="dim"),
            Text(one_line(shown, 120), style="" if line["evidence"] else "dim"),
        )
    return table


def audit_problems(document: Mapping[str, Any]) -> list[RenderableType]:
    """What failed or is a warning: what was tried, the evidence, and what to change; empty where nothing is."""
    shown: list[RenderableType] = []
    for line in document["lines"]:
        if line["verdict"] in ("failed", "warning"):
            mark, style = _MARKS[line["verdict"]]
            shown.append(Text.assemble((f"{mark} {line['name']}", style), f"  {line['tries']}"))
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_column(no_wrap=True, style="dim")
            grid.add_column(overflow="fold")
            for what, value in (("graded", line["evidence"]), ("found", line["detail"]), ("change", line["change"])):
                if value:
                    grid.add_row(f"    {what}", Text(printable(value)))
            shown.append(grid)
    return shown


def audit_summary(document: Mapping[str, Any]) -> str:
    """Counts, the limit and where it comes from, in two lines."""
    lines = document["lines"]
    counts = {verdict: sum(line["verdict"] == verdict for line in lines) for verdict in _MARKS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return (
        f"{told}; {document['n_items']} items, {document['n_grades']} grades\n"
        f"honest failures earn up to {document['failure_limit']:.2f} (90th percentile), success is "
        f"{document['pass_threshold']:g} and above; {document['baseline']}"
    )


def audit_page(document: Mapping[str, Any], title: str) -> str:
    """The whole page as text: self-contained, without scripts."""
    template = templates().get_template("audit.html.j2")
    return template.render(
        audit=document, title=title, summary=audit_summary(document), marks=_MARKS, style=resource("page.css")
    )


def write_audit_page(document: Mapping[str, Any], title: str, path: Path) -> Path:
    """Write the page, replacing an older one in one step; returns `path`."""
    return write_whole(path, audit_page(document, title), errors="replace")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
