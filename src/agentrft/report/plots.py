"""The page's figures as plotly documents (plain dicts): data and layout, no plotly import needed to make them.

Colours of text and grid are left to the page's style sheet, so that dark mode works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentrft.report.model import Report, Stage
from agentrft.report.wording import STAGE_COLOURS, stop_words

Figure = dict[str, Any]

TRAIN, VALIDATION, BASE = STAGE_COLOURS["rft"], "#1d4ed8", STAGE_COLOURS["base"]
_STOP_COLOURS = ("#3f948b", "#d9a95c", "#7d8fb3", "#cf7d63", "#a58bb8", "#8f9a6a", "#b0575a")


def figures(report: Report) -> dict[str, Figure]:
    """All figures that the report has numbers for, by element id."""
    made: dict[str, Figure] = {}
    if report.steps:
        made["reward-curve"] = _reward_curve(report)
        if any(point.calls is not None for point in report.steps):
            made["calls-curve"] = _calls_curve(report)
    if any(stage.main.stop_reasons for stage in report.stages):
        made["stop-reasons"] = _stop_reasons(report.stages)
    return made


def _layout(**more: Any) -> dict[str, Any]:
    axis = {"zeroline": False, "showline": False, "ticks": "", "automargin": True, "fixedrange": True}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 44, "r": 12, "t": 10, "b": 40},
        "height": 300,
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {"namelength": -1},
        "font": {"family": "ui-sans-serif, system-ui, sans-serif", "size": 13},
        "xaxis": {**axis, "showgrid": False, **more.pop("xaxis", {})},
        "yaxis": {**axis, "gridwidth": 1, **more.pop("yaxis", {})},
        **more,
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 12}, "standoff": 8}


def _reward_curve(report: Report) -> Figure:
    steps = [point.step for point in report.steps]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "training reward",
            "x": steps,
            "y": [point.reward for point in report.steps],
            "line": {"color": TRAIN, "width": 2.5},
            "marker": {"size": 6},
            "hovertemplate": "%{y:.3f}",
        }
    ]
    if report.validations:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "validation reward",
                "x": [point.step for point in report.validations],
                "y": [point.reward for point in report.validations],
                "marker": {
                    "size": 12,
                    "symbol": "diamond",
                    "color": VALIDATION,
                    "line": {"width": [3 if p.step == report.best_step else 0 for p in report.validations]},
                },
                "hovertemplate": "%{y:.3f}",
            }
        )
    high = max([1.0, *(point.reward for point in report.steps)])
    low = min([0.0, *(point.reward for point in report.steps)])
    axis = {"title": _title("step"), "dtick": max(1, len(steps) // 12)}
    return {"data": data, "layout": _layout(xaxis=axis, yaxis={"range": [low - 0.02, high + 0.04]})}


def _calls_curve(report: Report) -> Figure:
    points = [point for point in report.steps if point.calls is not None]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "calls per episode",
            "x": [point.step for point in points],
            "y": [point.calls for point in points],
            "line": {"color": STAGE_COLOURS["sft"], "width": 2.5},
            "marker": {"size": 6},
            "hovertemplate": "%{y:.2f}",
        }
    ]
    axis = {"title": _title("step"), "dtick": max(1, len(points) // 12)}
    top = max(point.calls or 0.0 for point in points)
    return {"data": data, "layout": _layout(xaxis=axis, yaxis={"range": [0, top * 1.1 + 0.1]})}


def stop_reason_order(stages: Sequence[Stage]) -> list[str]:
    """Stop reasons that occur, most frequent first, `answered` always in front."""
    totals: dict[str, int] = {}
    for stage in stages:
        for reason, count in stage.main.stop_reasons.items():
            totals[reason] = totals.get(reason, 0) + count
    return sorted((r for r in totals if totals[r]), key=lambda r: (r != "answered", -totals[r], r))


def _stop_reasons(stages: Sequence[Stage]) -> Figure:
    shown = [stage for stage in stages if stage.main.stop_reasons]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": stop_words(reason),
            "y": [stage.name for stage in shown],
            "x": [stage.main.stop_reasons.get(reason, 0) for stage in shown],
            "marker": {"color": stop_colour(index)},
            "hovertemplate": "%{x} episodes",
        }
        for index, reason in enumerate(stop_reason_order(stages))
    ]
    layout = _layout(
        barmode="stack",
        bargap=0.45,
        hovermode="y unified",
        height=70 + 50 * len(shown),
        yaxis={"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
        xaxis={"title": _title("episodes")},
    )
    return {"data": data, "layout": layout}


def stop_colour(index: int) -> str:
    """Colour of the n-th stop reason in `stop_reason_order`."""
    return _STOP_COLOURS[index % len(_STOP_COLOURS)]
