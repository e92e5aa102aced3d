"""Terminal tables and transcripts (Rich), made from the same objects as the HTML page; tidy from 80 columns up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentrft.report.model import NextStep, RungLine, Shown, Stage
from agentrft.report.text import one_line
from agentrft.report.transcript import PromptPart, transcript
from agentrft.report.wording import bounds, duration, gain, number
from agentrft.stats import Interval
from agentrft.types import Episode

_SHORT_NAME = 4
"""Stage names up to this length leave room for mean and bounds on one line of 80 columns."""
_MARKS = {
    "system": ("system", "dim"),
    "user": ("user", "bold"),
    "text": ("model", ""),
    "call": ("→", "cyan"),
    "credit": ("±", "magenta"),
    "result": ("", "dim"),
    "error": ("", "yellow"),
    "answer": ("answer", "bold green"),
    "end": ("stopped", "yellow"),
}


def stage_table(stages: Sequence[Stage], *, split: str | None = None) -> Table:
    """Reward, success, calls and parse rate of every stage with 95 % intervals, for one split (the first if None)."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("", style="bold", overflow="fold")
    for name in ("reward", "success", "calls/episode", "parse rate"):
        table.add_column(name, no_wrap=True)
    # Beside a long name (a model's) the bounds go below the mean, so that 80 columns hold both.
    break_at = "\n" if any(len(stage.name) > _SHORT_NAME for stage in stages) else " "
    for stage in stages:
        figures = stage.figures.get(split) if split else stage.main
        if figures is not None:
            cells = (figures.reward, figures.success, figures.calls, figures.parse_rate)
            table.add_row(stage.name, *(_cell(cell, break_at) for cell in cells))
    return table


def _cell(interval: Interval, break_at: str) -> Text:
    digits = 2 if interval.high < 10 else 1
    return Text.assemble(number(interval.mean, digits) + break_at, (bounds(interval, digits=digits), "dim"))


def gain_lines(gains: Sequence[tuple[str, Interval]]) -> Text:
    """One line a paired difference, green where the whole interval is above zero, red where below."""
    text = Text()
    width = max((len(label) for label, _ in gains), default=0)
    for index, (label, interval) in enumerate(gains):
        style = "bold green" if interval.low > 0 else "bold red" if interval.high < 0 else "bold"
        text.append(("\n" if index else "") + f"{label:<{width}}  ").append(gain(interval), style=style)
    return text


def rung_lines(rungs: Sequence[RungLine]) -> Text:
    """For each rung what it cost, and what was decided on it and why; print with `soft_wrap=True`."""
    text = Text()
    for index, rung in enumerate(rungs):
        text.append(("\n" if index else "") + rung.name, style="bold")
        if rung.over is not None:
            text.append(f"  {rung.episodes} episodes, {duration(rung.wall_s)}, from {rung.over}", style="dim")
        if rung.decided:
            text.append("\n  decided: ", style="dim").append(rung.decided, style="cyan")
            text.append(f"  ({rung.sure} of resamples)", style="dim")
            text.append(f"\n  {one_line(rung.why, 160)}", style="dim")
            if rung.numbers:
                text.append(f"\n  {one_line(rung.numbers, 160)}", style="dim")
    return text


def next_step_lines(steps: Sequence[NextStep]) -> Text:
    """What to type next: a comment line and the command; print with `soft_wrap=True`, so that it can be copied."""
    text = Text()
    for index, step in enumerate(steps):
        text.append(("\n" if index else "") + f"  # {step.what}\n", style="dim").append(
            f"  {step.command}", style="cyan"
        )
    return text


def transcript_view(shown: Shown, *, prompt: PromptPart = "whole", max_lines: int = 12) -> Group:
    """One episode to read: heading with reward, then who said what; long entries are cut to `max_lines` lines."""
    table = transcript_table(shown.episode, prompt=prompt, max_lines=max_lines, credit=shown.credit)
    return Group(_heading(shown), Padding(table, (0, 0, 0, 2)))


def transcript_table(
    episode: Episode, *, prompt: PromptPart = "whole", max_lines: int = 12, credit: Sequence[str] = ()
) -> Table:
    """Who said what, and what each turn earned, without a heading."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for line in transcript(episode, prompt=prompt, credit=credit):
        mark, style = _MARKS[line.kind]
        table.add_row(Text(mark), Text("\n".join(_cut(line.text, max_lines)), style=style))
    return table


def _heading(shown: Shown) -> Text:
    reward = "no grade" if shown.reward is None else f"reward {number(shown.reward)}"
    calls = shown.episode.n_calls
    return Text.assemble(
        (shown.label, "bold"), ("  ", ""), (f"{reward}, {calls} call{'' if calls == 1 else 's'}", "dim")
    )


def _cut(text: str, max_lines: int) -> Iterator[str]:
    lines = text.splitlines() or [""]
    yield from lines[:max_lines]
    if len(lines) > max_lines:
        yield f"… {len(lines) - max_lines} more lines"


def question_of(shown: Shown, width: int = 76) -> str:
    """The user's words of an episode on one line."""
    users = [message.content or "" for message in shown.episode.messages if message.role == "user"]
    return one_line(users[0] if users else "", width)
