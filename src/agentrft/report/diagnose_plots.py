"""The figures of a diagnosis as plotly documents (plain dicts); colours of text and grid are the style sheet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.report.plots import Figure
from agentrft.report.text import one_line, printable

MEAN, BEST, CLASS = "#0f766e", "#b7791f", "#7d8fb3"
OWNER_COLOURS = {
    "env": "#b0575a",
    "grader": "#b0575a",
    "task": "#b0575a",
    "harness": "#d9a95c",
    "interface": "#d9a95c",
    "output": "#d9a95c",
    "prompt": "#d9a95c",
    "agent": "#7d8fb3",
}
"""Red: to be mended first; sand: mendable without weights; blue: the model's own."""
_LABEL = 44


def diagnosis_figures(document: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures by element id."""
    made = {"variance": _variance(document), "pass-at": _pass_at(document)}
    if document["failures"]["classes"]:
        made["classes"] = _classes(document["failures"]["classes"])
    return made


def sorted_items(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Items with a reward, from the lowest mean to the highest."""
    graded = [item for item in document["items"] if item["rewards"]]
    return sorted(graded, key=lambda one: (one["mean"], one["best"], one["id"]))


def _variance(document: Mapping[str, Any]) -> Figure:
    items = sorted_items(document)
    places = list(range(1, len(items) + 1))
    words = [f"{printable(item['id'])}: {one_line(item['question'], _LABEL)}" for item in items]
    worst = [min(item["rewards"]) for item in items]
    best = [item["best"] for item in items]
    low, high = min([0.0, *worst]), max([*best, 1.0 if min(worst) >= 0 else 0.0])
    room = 0.05 * (high - low) or 0.05
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "best episode",
            "x": places,
            "y": best,
            "marker": {"size": 8, "symbol": "line-ew", "color": BEST, "line": {"width": 2.5, "color": BEST}},
            "customdata": words,
            "hovertemplate": "best %{y:.2f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean ± σ",
            "x": places,
            "y": [item["mean"] for item in items],
            "error_y": {
                "type": "data",
                "array": [item["sd"] or 0.0 for item in items],
                "color": MEAN,
                "thickness": 1.2,
                "width": 0,
            },
            "marker": {"size": 6, "color": MEAN},
            "text": [f"{item['sd'] or 0.0:.2f}" for item in items],
            "customdata": words,
            "hovertemplate": "%{customdata}<br>mean %{y:.2f} ± %{text}<extra></extra>",
        },
    ]
    axis = {"title": _title("items, sorted by mean reward"), "range": [0, len(items) + 1], "showticklabels": False}
    spread = max((item["mean"] + (item["sd"] or 0.0) for item in items), default=high)
    bottom = min((item["mean"] - (item["sd"] or 0.0) for item in items), default=low)
    reach = {"title": _title("reward"), "range": [min(low, bottom) - room, max(high, spread) + room]}
    return {"data": data, "layout": _layout(xaxis=axis, yaxis=reach, hovermode="closest", height=320)}


def _pass_at(document: Mapping[str, Any]) -> Figure:
    pass_at = document["figures"]["pass_at"]
    ks = [int(k) for k in pass_at]
    lows = [pass_at[str(k)]["low"] for k in ks]
    highs = [pass_at[str(k)]["high"] for k in ks]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [*ks, *reversed(ks)],
        "y": [*highs, *reversed(lows)],
        "fill": "toself",
        "fillcolor": "rgba(15,118,110,.16)",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "pass@k",
        "x": ks,
        "y": [pass_at[str(k)]["mean"] for k in ks],
        "line": {"color": MEAN, "width": 2.5},
        "marker": {"size": 7},
        "hovertemplate": "pass@%{x}: %{y:.2f}<extra></extra>",
    }
    axis = {"title": _title("episodes per item (k)"), "type": "log", "tickvals": ks, "ticktext": [str(k) for k in ks]}
    share = {"range": [-0.02, 1.02], "tickformat": ".0%"}
    return {"data": [band, line], "layout": _layout(xaxis=axis, yaxis=share, hovermode="closest")}


def _classes(classes: Sequence[Mapping[str, Any]]) -> Figure:
    shown = list(reversed(classes))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [f"{one['kind'].replace('_', ' ')} ({one['owner']})" for one in shown],
            "x": [one["episodes"] for one in shown],
            "marker": {"color": [OWNER_COLOURS.get(one["owner"], CLASS) for one in shown]},
            "text": [f"{one['share']:.0%}" for one in shown],
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": "%{x} episodes<extra></extra>",
        }
    ]
    most = max(one["episodes"] for one in shown)
    layout = _layout(
        height=90 + 34 * len(shown),
        bargap=0.35,
        hovermode="closest",
        xaxis={"title": _title("failed episodes, each by its first cause"), "range": [0, most * 1.15]},
        yaxis={"showgrid": False, "ticksuffix": "  "},
    )
    return {"data": data, "layout": layout}


def _layout(**more: Any) -> dict[str, Any]:
    axis = {"zeroline": False, "showline": False, "ticks": "", "automargin": True, "fixedrange": True}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 48, "r": 16, "t": 10, "b": 44},
        "height": 300,
        "showlegend": False,
        "font": {"family": "ui-sans-serif, system-ui, sans-serif", "size": 13},
        "xaxis": {**axis, "showgrid": False, **more.pop("xaxis", {})},
        "yaxis": {**axis, "gridwidth": 1, **more.pop("yaxis", {})},
        **more,
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 12}, "standoff": 8}
