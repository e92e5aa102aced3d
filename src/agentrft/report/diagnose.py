"""A diagnosis for the terminal (Rich), from its JSON document; tidy from 80 columns up.

Titles, notes and questions come from models and tools: they are made printable here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentrft.report.text import one_line
from agentrft.report.wording import duration, number

Document = Mapping[str, Any]

GO_STYLES = {"go": "bold green", "no-go": "bold red", "unsure": "bold yellow"}
GO_WORDS = {
    "go": "GO: reinforcement can learn here",
    "no-go": "NO-GO: not reinforcement, not yet",
    "unsure": "TOO LITTLE DATA to say",
}
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 6
_STRIP = 64


def diagnosis_view(document: Document) -> list[RenderableType]:
    """The report from top to bottom."""
    parts: list[RenderableType] = [heading(document), figure_table(document), Text()]
    parts += [Text(line, style="dim") for line in fact_lines(document)]
    parts += [Text(), strip(document)]
    if document["tools"]:
        parts += [Text("\ntools", style="bold"), tool_table(document)]
    parts += [Text("\nwhat goes wrong", style="bold"), *findings_view(document), Text(), verdict_view(document)]
    return parts


def heading(document: Document) -> Text:
    """Which model on which items, and the bundle."""
    where = f" at {document['endpoint']}" if document.get("endpoint") else ""
    text = Text("DIAGNOSIS", style="bold")
    text.append(f"  {one_line(player_of(document) + where, 68)}\n", style="bold")
    made = f"{document['n_items']} items of {document['split']} × {document['samples']} = "
    return text.append(f"{made}{document['n_episodes']} episodes, bundle {document['bundle'][:12]}", style="dim")


def player_of(document: Document) -> str:
    """The model's name; of a folder its last part."""
    name = document["model"]
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name


def figure_table(document: Document) -> Table:
    """Mean and intervals of everything that is a share or a reward."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("mean", justify="right")
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("bootstrap", style="dim", no_wrap=True)
    for label, interval in figure_rows(document):
        again = interval.get("bootstrap")
        table.add_row(label, _number(interval["mean"]), bounds_of(interval), bounds_of(again) if again else "")
    return table


def figure_rows(document: Document) -> list[tuple[str, Mapping[str, Any]]]:
    """Label and interval, in the order they are read."""
    figures, samples = document["figures"], document["samples"]
    pass_at = [(f"pass@{k}", interval) for k, interval in figures["pass_at"].items()]
    return [
        *pass_at,
        ("reward", figures["reward"]),
        (f"best of {samples}", figures["best"]),
        ("headroom (best − mean)", figures["headroom"]),
        ("items with signal", figures["signal"]),
        ("items never solved", figures["never"]),
        ("items always solved", figures["always"]),
        ("tool calls / episode", figures["calls"]),
        ("episodes that broke", figures["faults"]),
    ]


def fact_lines(document: Document) -> list[str]:
    """What is no interval: sizes, times, the grader."""
    figures, repeat = document["figures"], document["grading"]["repeat"]
    tokens = ""
    if figures["generated_tokens"] is not None:
        tokens = (
            f"{figures['generated_tokens']:.0f} tokens written and {figures['prompt_tokens']:.0f} read an episode, "
        )
    lines = [
        f"{tokens}{_seconds(figures['episode_s'])} an episode",
        f"{figures['unreadable']:.1%} of replies unreadable, {figures['truncated']:.1%} of episodes cut off, "
        f"{figures['no_grade']:.1%} without a grade",
    ]
    icc = "not known" if repeat["icc"] is None else f"{repeat['icc']:.2f}"
    graded = f"grader ICC {icc} ({repeat['episodes']} episodes graded {repeat['gradings']} times, "
    graded += f"{repeat['changed']} changed), {_seconds(figures['grader_s'])} a grade"
    if second := document["grading"]["second"]:
        rho = "not known" if second["rho"] is None else f"{second['rho']:.2f}"
        graded += f", rank correlation with `audit.grader` {rho}"
    fooled = document["grading"]["fooled_by"]
    audited = "not audited" if fooled is None else "audit passed" if not fooled else f"fooled by {', '.join(fooled)}"
    return [*lines, graded, f"grader: {audited}"]


def strip(document: Document) -> Text:
    """The items from worst to best mean reward: a bar for the mean, and above it one for the best episode."""
    items = sorted((item for item in document["items"] if item["rewards"]), key=lambda one: (one["mean"], one["best"]))
    if not items:
        return Text()
    step = max(1, -(-len(items) // _STRIP))
    low = min(0.0, *(min(item["rewards"]) for item in items))
    high = max(low + 1e-9, 1.0 if low >= 0 else 0.0, *(item["best"] for item in items))
    text = Text()
    for label, name in (("best", "best"), ("mean", "mean")):
        bars = "".join(_bar(item[name], low, high) for item in items[::step])
        text.append(f"{label}  ", style="dim").append(bars + "\n", style="cyan" if name == "best" else "green")
    each = f"every {step}. item" if step > 1 else "an item each"
    return text.append(f"      {each}, sorted by mean reward; {number(low)} to {number(high)}", style="dim")


def tool_table(document: Document) -> Table:
    """Calls, mistakes, faults, times and sizes by tool."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold", max_width=26)
    for name in ("calls", "/episode", "errors", "faults", "p50", "p95", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for tool in document["tools"]:
        share = f"{tool['error']['mean']:.0%}" if tool["calls"] else ""
        tokens = tool["tokens_shown"]
        table.add_row(
            Text(one_line(tool["name"], 40), style="" if tool["is_known"] else "yellow"),
            str(tool["calls"]),
            f"{tool['calls'] / max(document['n_episodes'], 1):.2f}",
            share,
            str(tool["faults"]) if tool["faults"] else "",
            _seconds(tool["p50_s"]),
            _seconds(tool["p95_s"]),
            "" if tokens is None else f"{tokens:.0f}",
        )
    return table


def findings_view(document: Document) -> list[RenderableType]:
    """The first findings with what shows them; what comes after is in the page and in the JSON."""
    failures = document["failures"]
    if not failures["findings"]:
        return [Text("nothing: no class of failure was found", style="dim")]
    parts: list[RenderableType] = []
    for finding in failures["findings"][:_SHOWN]:
        parts += [_finding_line(finding), Padding(_finding_grid(finding), (0, 0, 0, 4))]
    more = len(failures["findings"]) - _SHOWN
    if more > 0:
        parts.append(Text(f"and {more} more (--html and --json have all of them)", style="dim"))
    shares = f"{failures['interface_share']:.0%} owned by prompt, tools, outputs or limits, "
    shares += f"{failures['format_share']:.0%} of form"
    return [*parts, Text(f"of {failures['failed']} failed episodes {shares}", style="dim")]


def verdict_view(document: Document) -> Group:
    """Go or no-go, the rule, its numbers, and what to do next."""
    verdict = document["verdict"]
    lines = [
        Text(GO_WORDS[verdict["go"]], style=GO_STYLES[verdict["go"]]),
        Text(f"rule {verdict['rule']}: {one_line(verdict['why'], 400)}"),
        Text(f"next: {one_line(verdict['next_step'], 400)}", style="cyan"),
    ]
    return Group(*lines)


def bounds_of(interval: Mapping[str, Any]) -> str:
    """`[0.42, 0.56]`; a bound that is not known is `?`."""
    low, high = ("?" if value is None else number(value) for value in (interval["low"], interval["high"]))
    return f"[{low}, {high}]"


def points(interval: Mapping[str, Any] | None) -> str:
    """`+6.1 [3.0, 8.8]`: an interval of shares in points of a hundred."""
    if interval is None:
        return ""
    low, high = ("?" if v is None else number(100 * v, 1) for v in (interval["low"], interval["high"]))
    return f"{number(100 * interval['mean'], 1, sign='+')} [{low}, {high}]"


def where_of(cite: Mapping[str, Any]) -> str:
    """`turn 3`, `turn 3, call 2`, or nothing for a whole episode."""
    if cite["turn"] is None:
        return ""
    call = f", call {cite['call'] + 1}" if cite["call"] else ""
    return f"turn {cite['turn'] + 1}{call}"


def _finding_line(finding: Mapping[str, Any]) -> Text:
    return Text(f"{finding['rank']:>2}  ", style="bold").append(one_line(finding["title"], 74), style="bold")


def _weight(finding: Mapping[str, Any]) -> str:
    """Class, owner, how often, and what mending it could bring."""
    share = finding["failures"]["mean"] if finding["failures"] else 0.0
    text = f"{finding['kind']} ({finding['owner']}): {share:.0%} of failures, {finding['items']} items"
    if finding["ceiling"] and finding["ceiling"]["mean"] > 0:
        text += f", at most {points(finding['ceiling'])} points"
    return f"{text}; {finding['note']}" if finding["note"] else text


def _finding_grid(finding: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("what", Text(one_line(_weight(finding), 300), style="dim"))
    for cite in finding["cites"]:
        where = ", ".join(part for part in (cite["episode_id"][:11], where_of(cite)) if part)
        grid.add_row("see", Text(f"{where}: {one_line(cite['note'], 90)}"))
    passing = next((cite["passing_id"] for cite in finding["cites"] if cite["passing_id"]), None)
    if passing:
        grid.add_row("passed", Text(f"{passing[:11]}, the same item"))
    grid.add_row("change", Text(one_line(finding["proposal"], 300), style="cyan"))
    return grid


def _bar(value: float, low: float, high: float) -> str:
    place = round((value - low) / (high - low) * (len(_BARS) - 1))
    return _BARS[min(max(place, 0), len(_BARS) - 1)]


def _number(value: float) -> str:
    return number(value)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 0.001:
        return "<1 ms"
    if value < 1:
        return f"{1000 * value:.0f} ms"
    return f"{value:.1f} s" if value < 60 else duration(value)


def episode_ids(document: Document) -> Sequence[str]:
    """Episodes that the page shows: those cited, and what passed beside them."""
    cites = [cite for finding in document["failures"]["findings"] for cite in finding["cites"]]
    ids = [id for cite in cites for id in (cite["episode_id"], cite["passing_id"]) if id]
    return list(dict.fromkeys(ids))
