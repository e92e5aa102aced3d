import json
import re
from html.parser import HTMLParser
from pathlib import Path

from agentrft.report.html import page, write_page
from agentrft.report.model import Report


class Elements(HTMLParser):
    """Collects what a browser would build: tags with attributes, script bodies, visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._script: tuple[dict[str, str | None], str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script = (dict(attrs), "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script:
            self.scripts.append(self._script)
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self._script = (self._script[0], self._script[1] + data)
        else:
            self.words.append(data)


def test_hostile_text_is_shown_and_never_runs(report: Report) -> None:
    elements = Elements(page(report))
    assert len(elements.scripts) == 3  # the figures' data, plotly, and our drawing script
    assert not [tag for tag, _ in elements.tags if tag in ("img", "iframe", "object", "embed", "form", "base")]
    assert not [attrs for _, attrs in elements.tags if any(name.startswith("on") for name in attrs)]
    text = "".join(elements.words)
    assert "<img src=x onerror=alert(1)>" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_only_scripts_with_the_pages_nonce_may_run_and_nothing_may_be_fetched(report: Report) -> None:
    elements = Elements(page(report))
    policy = next(attrs["content"] for tag, attrs in elements.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce
    running = [attrs for attrs, _ in elements.scripts if attrs.get("type") != "application/json"]
    assert [attrs.get("nonce") for attrs in running] == [nonce[1], nonce[1]]
    assert not [attrs for _, attrs in elements.tags if "src" in attrs or attrs.get("href", "").startswith("http")]


def test_the_nonce_is_new_in_every_page(report: Report) -> None:
    nonces = {re.search(r"nonce-([\w-]+)", page(report))[1] for _ in range(2)}  # type: ignore[index]
    assert len(nonces) == 2


def test_the_figures_hold_the_reports_numbers(report: Report) -> None:
    elements = Elements(page(report))
    figures = json.loads(next(body for attrs, body in elements.scripts if attrs.get("type") == "application/json"))
    assert set(figures) == {"reward-curve", "calls-curve", "stop-reasons"}
    training, validation = figures["reward-curve"]["data"]
    assert (training["x"], training["y"]) == ([1, 2], [0.2, 0.4])
    assert (validation["x"], validation["y"]) == ([2], [0.45])
    assert [bar["name"] for bar in figures["stop-reasons"]["data"]] == [
        "answered",
        "ran out of turns",
        "tool or grader fault",
    ]
    ids = {attrs.get("id") for _, attrs in elements.tags}
    assert set(figures) <= ids


def test_plotly_accepts_every_figure(report: Report) -> None:
    import plotly.graph_objects as go

    from agentrft.report.plots import figures

    for figure in figures(report).values():
        go.Figure(figure)


def test_the_page_says_the_numbers_in_text_too(report: Report) -> None:
    text = " ".join("".join(Elements(page(report)).words).split())
    assert "Reward rose from 0.28 to 0.77" in text
    assert "0.77 [0.72, 0.82]" in text
    assert "+0.72 [+0.65, +0.79]" in text
    assert "−0.20 [−0.30, −0.10]" in text
    assert "agentrft chat filenav" in text


def test_a_report_without_figures_needs_no_script() -> None:
    text = page(Report(kind="supervised", headline="Done", lede="No curve yet."))
    assert not Elements(text).scripts
    assert len(text) < 20_000


def test_writing_replaces_the_old_page_and_leaves_nothing_else(report: Report, tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    write_page(report, target)
    write_page(report, target)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
