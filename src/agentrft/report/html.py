"""One HTML file that shows a report: styles, figures and plotting code inside, nothing fetched, nothing sent.

Model and tool text is hostile input: Jinja2 escapes every value, control characters are removed, data for the figures
travels as JSON that cannot close its element, and a content security policy allows only this page's own script and no
connection at all.
"""

from __future__ import annotations

import math
import secrets
from pathlib import Path
from typing import Any

from jinja2 import Environment

from agentrft.report.model import Report
from agentrft.report.plots import figures, stop_colour, stop_reason_order
from agentrft.report.templating import json_for_script, plotly_script, resource, templates
from agentrft.report.transcript import transcript
from agentrft.report.wording import bounds, duration, gain, number, stop_words
from agentrft.stats import Interval
from agentrft.writing import write_whole

_LINE_WORDS = {
    "call": "call",
    "result": "tool",
    "error": "tool, as an error",
    "answer": "answer",
    "text": "model",
    "end": "stopped",
}


def page(report: Report) -> str:
    """The whole page as text (about 5 MB: plotly's script is inside)."""
    made = figures(report)
    return (
        _environment()
        .get_template("training.html.j2")
        .render(
            report=report,
            figures=made,
            figure_data=json_for_script(made),
            plotly=plotly_script() if made else "",
            style=resource("page.css"),
            script=resource("page.js"),
            nonce=secrets.token_urlsafe(16),
            measures=_measures(report),
            splits=_splits(report),
            curve_rows=_curve_rows(report),
            stops=[
                (stop_words(reason), stop_colour(i), reason)
                for i, reason in enumerate(stop_reason_order(report.stages))
            ],
        )
    )


def write_page(report: Report, path: Path) -> Path:
    """Write the page, replacing an older one in one step; returns `path`."""
    return write_whole(path, page(report), errors="replace")


def _environment() -> Environment:
    environment = templates(bounds=bounds, duration=duration, gain=gain, number=number)
    environment.globals |= {"transcript": transcript, "share": _share, "words": _LINE_WORDS}
    return environment


def _measures(report: Report) -> list[dict[str, Any]]:
    """The stage table's columns: title, number format, top of the scale for the interval bars."""

    def top(read: Any) -> float:
        ends = [read(figures) for stage in report.stages for figures in stage.figures.values()]
        return max([1e-9, *(end.high if math.isfinite(end.high) else end.mean for end in ends)])

    return [
        {"title": "reward", "of": lambda f: f.reward, "top": max(1.0, top(lambda f: f.reward))},
        {"title": "success", "of": lambda f: f.success, "top": 1.0},
        {"title": "calls / episode", "of": lambda f: f.calls, "top": top(lambda f: f.calls) * 1.05},
        {"title": "parse rate", "of": lambda f: f.parse_rate, "top": 1.0},
    ]


def _share(interval: Interval, top: float) -> tuple[float, float, float]:
    """Low, mean and high in percent of the scale, kept inside it: where the bar and its dot go."""
    low, mean, high = (min(100.0, max(0.0, 100 * v / top)) for v in (interval.low, interval.mean, interval.high))
    return low, mean, high


def _splits(report: Report) -> list[dict[str, Any]]:
    """The stage table's parts, in the order in which stages first name them, with what was measured."""
    parts: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for stage in report.stages for name in stage.figures):
        one = next(stage.figures[name].reward for stage in report.stages if name in stage.figures)
        measured = f"{one.n_items} items, {one.n_episodes} episodes a stage"
        parts.append({"name": name, "title": f"{name.replace('_', ' ')}: {measured}", "first": not parts})
    return parts


def _curve_rows(report: Report) -> list[dict[str, Any]]:
    validation = {point.step: point.reward for point in report.validations}
    steps = {point.step: point for point in report.steps}
    rows: list[dict[str, Any]] = []
    for step in sorted(validation.keys() | steps.keys()):
        point = steps.get(step)
        measured = (point.reward, point.success, point.calls) if point else (None, None, None)
        rows.append({"step": step, "values": (*measured, validation.get(step))})
    return rows
