"""An optimisation for people: what changed, by how much, and why it is believed; terminal and one HTML page.

Both read the report's JSON document (`agentrft.ladder.optimise`). Texts in it come from tools and models: they are made
printable for terminals and escaped in the page, which runs no script.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from agentrft.report.templating import resource, templates
from agentrft.report.text import one_line, printable
from agentrft.writing import write_whole

_HEADLINES = {
    "adopted": "A better agent",
    "no_reliable_change": "No reliable change",
    "nothing_to_try": "Nothing to try",
}
_COSTS = {"tokens": "generated tokens", "calls": "calls", "interventions": "guardrail objections"}


def headline(document: Mapping[str, Any]) -> str:
    """The verdict in one line, with the confirmed gain where there is one."""
    found = document["confirmation"]
    words = _HEADLINES[document["verdict"]]
    return words if found is None else f"{words}: {_points(found['gain']['mean'])} {_bounds(found['gain'])}"


def lede(document: Mapping[str, Any]) -> str:
    """What the verdict rests on, in two or three sentences."""
    found = document["confirmation"]
    spent = f"{document['spent']} episodes"
    if document["verdict"] == "nothing_to_try":
        return f"No proposer found anything to change in {spent}."
    if found is None:
        return f"None of {len(document['tried'])} edits gained anything while they were searched, in {spent}."
    gain = found["gain"]
    measured = (
        f"Measured on {gain['n_items']} untouched items, the same for both sides, {gain['n_episodes']} episodes in "
        f"all: {found['wins']} items better, {len(found['losses'])} worse, {found['ties']} alike."
    )
    if document["verdict"] == "adopted":
        searched = document["searched"]
        flattery = "" if searched is None else f" While searching it looked like {_points(searched)}."
        return f"{measured} Adopted: the whole interval lies above zero.{flattery}{_price(found)}"
    if (gain["low"] or 0) > 0:
        return f"{measured} Not adopted: with the edits more episodes had no reward; if these failed, nothing is won."
    seen = f"A gain of {_points(found['smallest_seen'])} would be seen four times in five."
    return f"{measured} Not adopted: the interval does not lie above zero. {seen}"


def _price(found: Mapping[str, Any]) -> str:
    """What is bought with more than a tenth of a cost; empty where nothing is."""
    words = [
        f"{found['after'][name]:.2f} {_COSTS[name]} an episode instead of {found['before'][name]:.2f}"
        for name in found.get("dearer", ())
    ]
    return f" It costs more: {', '.join(words)}; apply it if that is worth it." if words else ""


def figures_table(document: Mapping[str, Any]) -> Table | None:
    """Before and after; None where nothing was confirmed."""
    found = document["confirmation"]
    if found is None:
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("", "before", "after"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, before, after in figures(document):
        table.add_row(name, before, after)
    return table


def figures(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(figure, before, after) of the confirmation."""
    found = document["confirmation"]
    sides = [found["before"], found["after"]]
    before, after = (f"{side['reward']['mean']:.3f} {_interval(side['reward'])}" for side in sides)
    yield "reward", before, after
    for name, title, form in (
        ("tokens", "generated tokens / episode", "{:.0f}"),
        ("calls", "calls / episode", "{:.2f}"),
        ("interventions", "guardrail objections / episode", "{:.2f}"),
        ("wall_s", "seconds / episode", "{:.2f}"),
    ):
        if any(side[name] for side in sides):
            yield title, form.format(sides[0][name]), form.format(sides[1][name])


def hunk_lines(document: Mapping[str, Any]) -> list[RenderableType]:
    """Each edit of the winner: what it changes, why, and what is lost without it."""
    lines: list[RenderableType] = []
    for hunk in document["hunks"]:
        is_only = len(document["hunks"]) == 1
        unknown = "the only one" if is_only else "not measured by itself: the budget did not reach"
        alone = f"without it {_points(-hunk['loss_without'])}" if hunk["n_slots"] else unknown
        lines.append(Text.assemble((hunk["id"], "bold"), f"  {printable(hunk['component'])}  ", (alone, "dim")))
        lines.append(Text(f"    {one_line(hunk['why'], 160)}"))
    return lines


def optimise_page(document: Mapping[str, Any], patch: str | None) -> str:
    """The whole page as text: self-contained, without scripts; `patch` is the diff, where something was adopted."""
    template = templates(points=_points).get_template("optimise.html.j2")
    return template.render(
        found=document,
        headline=headline(document),
        lede=lede(document),
        figures=list(figures(document)) if document["confirmation"] else [],
        patch=patch,
        style=resource("page.css"),
    )


def write_optimise_page(document: Mapping[str, Any], patch: str | None, path: Path) -> Path:
    """Write the page, replacing an older one in one step; returns `path`."""
    return write_whole(path, optimise_page(document, patch), errors="replace")


def _points(value: float) -> str:
    return f"{value:+.3f}"


def _bounds(interval: Mapping[str, Any]) -> str:
    return f"[{_bound(interval['low'])}, {_bound(interval['high'])}]"


def _bound(value: float | None) -> str:
    return "?" if value is None else _points(value)


def _interval(interval: Mapping[str, Any]) -> str:
    low, high = ("?" if bound is None else f"{bound:.3f}" for bound in (interval["low"], interval["high"]))
    return f"[{low}, {high}]"
