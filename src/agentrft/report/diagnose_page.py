"""A diagnosis as one HTML file that stands alone: figures, findings with transcripts, tables.

What models and tools said is hostile input; `agentrft.report.html` says how it is kept from acting.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

from agentrft.protocols import EpisodeRecord
from agentrft.report.diagnose import GO_WORDS, bounds_of, fact_lines, figure_rows, player_of, points, where_of
from agentrft.report.diagnose_plots import diagnosis_figures, sorted_items
from agentrft.report.templating import json_for_script, plotly_script, resource, templates
from agentrft.report.transcript import Line, transcript
from agentrft.report.wording import number
from agentrft.writing import write_whole

_WORDS = {
    "system": "system",
    "user": "user",
    "call": "call",
    "result": "tool",
    "error": "tool, as an error",
    "answer": "answer",
    "text": "model",
    "end": "stopped",
}
_LINE_CHARS = 2_000
"""Of one entry of a transcript; the whole is in the store."""


def diagnosis_page(document: Mapping[str, Any], records: Mapping[str, EpisodeRecord]) -> str:
    """The whole page as text; `records` are the episodes that the document cites, by id."""
    figures = diagnosis_figures(document)
    return (
        _environment()
        .get_template("diagnose.html.j2")
        .render(
            diagnosis=document,
            player=player_of(document),
            verdict=document["verdict"],
            headline=GO_WORDS[document["verdict"]["go"]],
            rows=figure_rows(document),
            facts=fact_lines(document),
            items=sorted_items(document),
            records=records,
            figures=figures,
            figure_data=json_for_script(figures),
            plotly=plotly_script(),
            style=resource("page.css"),
            own_style=resource("diagnose.css"),
            script=resource("page.js"),
            nonce=secrets.token_urlsafe(16),
        )
    )


def write_diagnosis_page(document: Mapping[str, Any], records: Mapping[str, EpisodeRecord], path: Path) -> Path:
    """Write the page, replacing an older one in one step; returns `path`."""
    return write_whole(path, diagnosis_page(document, records), errors="replace")


def _environment() -> Environment:
    environment = templates(bounds=bounds_of, points=points, number=number)
    environment.globals |= {"lines_of": _lines_of, "where": where_of, "words": _WORDS}
    return environment


def _lines_of(record: EpisodeRecord) -> list[Line]:
    """The transcript, its longest entries cut."""
    lines = transcript(record.episode, prompt="question")
    return [Line(kind=line.kind, text=_cut(line.text)) for line in lines]


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}\n… {len(text) - _LINE_CHARS} more characters"
