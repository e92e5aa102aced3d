"""A diagnosis and a decision for people: tidy at 80 columns, hostile text shown and never run, nothing fetched."""

from __future__ import annotations

import copy
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentrft.protocols import EpisodeRecord
from agentrft.report.decide import VERDICTS, decision_view
from agentrft.report.diagnose import diagnosis_view, episode_ids
from agentrft.report.diagnose_page import diagnosis_page, write_diagnosis_page
from agentrft.report.diagnose_plots import diagnosis_figures
from agentrft.types import Episode, Grade, Message, StopReason, ToolCall, ToolResult, Turn

HOSTILE = "<img src=x onerror=alert(1)></script>\x1b[31m\x1b]0;owned\x07 [bold]{{ 7 * 7 }} \u202egnp"


def interval(mean: float, low: float, high: float | None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "n_items": 3, "n_episodes": 12}


def item(n: int, rewards: list[float]) -> dict[str, Any]:
    mean = sum(rewards) / len(rewards) if rewards else None
    return {
        "id": f"{HOSTILE}{n}",
        "question": HOSTILE,
        "rewards": rewards,
        "passes": [int(reward >= 0.5) for reward in rewards],
        "faults": 0,
        "no_grade": 4 - len(rewards),
        "mean": mean,
        "sd": 0.5 if len(rewards) > 1 else None,
        "best": max(rewards, default=None),
        "classes": {"bad_args": 2},
    }


def finding(rank: int) -> dict[str, Any]:
    cite = {"item_id": HOSTILE, "turn": 1, "call": 0, "note": HOSTILE, "recovered": False}
    return {
        "rank": rank,
        "kind": "bad_args",
        "title": HOSTILE,
        "owner": "interface",
        "description": HOSTILE,
        "proposal": HOSTILE * 9,
        "target": {},
        "episodes": 8,
        "failed_episodes": 8,
        "items": 3,
        "failures": interval(1.0, 0.7, 1.0),
        "passes": 0.1,
        "recovered": 0.0,
        "lift": interval(0.3, 0.1, 0.5),
        "ceiling": interval(0.06, 0.01, 0.1) if rank == 1 else None,
        "priority": 0.1,
        "fixability": 0.7,
        "note": "" if rank == 1 else HOSTILE,
        "cites": [{**cite, "episode_id": "ep_failed", "passing_id": "ep_passed"}],
    }


def figures() -> dict[str, Any]:
    share = {**interval(0.5, 0.4, 0.6), "bootstrap": interval(0.5, 0.41, None)}
    return {
        "pass_at": {"1": share, "2": share, "4": share},
        **dict.fromkeys(("reward", "best", "headroom", "signal", "never", "always"), interval(0.3, 0.2, 0.4)),
        "calls": interval(2.0, 1.0, 3.0),
        "faults": interval(0.1, 0.0, 0.2),
        "variance": 0.1,
        "generated_tokens": 20.0,
        "prompt_tokens": 300.0,
        "episode_s": 75.0,
        "no_grade": 0.1,
        "truncated": 0.1,
        "unreadable": 0.1,
        "stop_reasons": {"answered": 16},
        "grader_s": 0.0001,
        "judge_tokens": 0,
    }


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "schema": 1,
        "job": "ftjob-abc",
        "model": HOSTILE,
        "endpoint": None,
        "engine": "float32 on cpu",
        "bundle": "0" * 64,
        "split": "train",
        "n_items": 4,
        "samples": 4,
        "n_episodes": 16,
        "pass_threshold": 0.5,
        "verdict": {"go": "no-go", "rule": "faults", "why": HOSTILE, "next_step": "mend", "numbers": {}},
        "figures": figures(),
        "grading": {
            "repeat": {"icc": None, "episodes": 3, "gradings": 3, "changed": 0, "largest": 0.0},
            "second": {"rho": 0.5, "episodes": 3},
            "fooled_by": ["empty"],
        },
        "failures": {
            "failed": 8,
            "interface_share": 0.5,
            "format_share": 0.1,
            "classes": [{"kind": "bad_args", "owner": "interface", "episodes": 8, "share": 1.0}],
            "findings": [finding(rank) for rank in range(1, 9)],
        },
        "tools": [
            {
                "name": HOSTILE,
                "is_known": False,
                "calls": 3,
                "episodes": 3,
                "error": interval(0.3, 0.1, 0.6),
                "faults": 1,
                "refused": 0,
                "retried": 0,
                "p50_s": 0.00001,
                "p95_s": 2.0,
                "bytes_in": 10.0,
                "chars_shown": 10.0,
                "tokens_shown": None,
            }
        ],
        "items": [item(0, [1.0, 0.0]), item(1, [0.0]), item(2, [1.0] * 4), item(3, [])],
    }


@pytest.fixture
def records() -> dict[str, EpisodeRecord]:
    """The two episodes that the document cites; everything that they say is hostile."""
    call = ToolCall(id="c", name=HOSTILE, arguments='{"a": "' + "</script>" + '"}')
    turn = Turn(
        reply=Message(role="assistant", tool_calls=(call,)),
        results=(ToolResult(call_id="c", output=HOSTILE * 100),),
    )
    said = (turn.reply, Message(role="tool", content=HOSTILE * 100, tool_call_id="c"))
    return {
        id: EpisodeRecord(
            job_id="ftjob-abc",
            phase="test",
            stage="diagnose",
            episode=Episode(
                id=id,
                trace_id="t",
                item_id="w",
                step=0,
                member=0,
                attempt=0,
                messages=(Message(role="user", content=HOSTILE), *said),
                turns=(turn,),
                stop_reason=StopReason.MAX_TURNS,
            ),
            grade=Grade(value=0.0),
            reward=0.0,
        )
        for id in ("ep_failed", "ep_passed")
    }


class Elements(HTMLParser):
    """Tags with attributes, number of scripts, visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)


def printed(parts: list[Any], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_shows_everything_within_80_columns(document: dict[str, Any]) -> None:
    text = printed(diagnosis_view(document))
    for words in ("NO-GO", "pass@4", "[0.41, ?]", "what goes wrong", "and 2 more", "fooled by empty", "1 min 15 s"):
        assert words in text
    assert "see    ep_failed, turn 2: <img" in text
    assert "passed ep_passed" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]" in text  # markup of others is text


def test_hostile_text_is_shown_on_the_page_and_never_runs(
    document: dict[str, Any], records: dict[str, EpisodeRecord]
) -> None:
    text = diagnosis_page(document, records)
    elements = Elements(text)
    assert [tag for tag, _ in elements.tags].count("script") == 3
    assert not [tag for tag, _ in elements.tags if tag in ("img", "iframe", "object", "embed", "form", "base", "link")]
    assert not [attrs for _, attrs in elements.tags if any(name.startswith("on") for name in attrs)]
    assert not [attrs for _, attrs in elements.tags if "src" in attrs or "href" in attrs]
    shown = "".join(elements.words)
    assert "<img src=x onerror=alert(1)></script>" in shown
    assert "{{ 7 * 7 }}" in shown
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "more characters" in shown  # long results are cut
    policy = next(attrs["content"] for tag, attrs in elements.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce
    running = [attrs for tag, attrs in elements.tags if tag == "script" and attrs.get("type") != "application/json"]
    assert [attrs.get("nonce") for attrs in running] == [nonce[1], nonce[1]]


def test_the_page_does_without_episodes_that_are_gone(document: dict[str, Any], tmp_path: Path) -> None:
    path = write_diagnosis_page(document, {}, tmp_path / "new" / "page.html")
    assert "Read it" not in path.read_text()
    assert sorted(file.name for file in path.parent.iterdir()) == ["page.html"]
    assert episode_ids(document) == ["ep_failed", "ep_passed"]


def test_a_diagnosis_without_findings_tools_or_variation(document: dict[str, Any]) -> None:
    bare = copy.deepcopy(document)
    bare["failures"] |= {"findings": [], "classes": [], "failed": 0}
    bare["tools"] = []
    bare["items"] = [item(0, [-0.5])]
    assert "no class of failure" in printed(diagnosis_view(bare))
    assert "no class of failure" in diagnosis_page(bare, {})
    assert set(diagnosis_figures(bare)) == {"variance", "pass-at"}
    low, high = diagnosis_figures(bare)["variance"]["layout"]["yaxis"]["range"]
    assert low < -0.5 < 0 < high


def test_many_items_are_sampled_in_the_strip(document: dict[str, Any]) -> None:
    many = {**document, "items": [item(n, [n / 500, 1.0]) for n in range(500)]}
    text = printed(diagnosis_view(many))
    assert "every 8. item" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_verdict_of_decide_has_words() -> None:
    from agentrft.ladder.rules import Verdict

    assert set(VERDICTS) == {verdict.value for verdict in Verdict}


def test_a_decision_in_the_terminal() -> None:
    condition = {"what": "items with signal", "value": 0.22, "relation": "≥", "bound": 0.2, "holds": True}
    document = {
        "verdict": "reinforcement",
        "rule": "11",
        "why": "outcomes are mixed",
        "conditions": [{**condition, "text": "items with signal 0.22 ≥ 0.20"}],
        "stability": {
            "share": 0.6,
            "borderline": True,
            "resamples": 200,
            "verdicts": {"reinforcement": 0.6, "collect": 0.4},
        },
        "plateau": {"state": "untried", "why": "no search"},
        "otherwise": {"rule": "13b", "verdict": "collect"},
        "nearest": [
            {
                "rule": "10",
                "verdict": "supervised",
                "missing": [
                    {"what": "demonstrations", "value": 45, "relation": "≥", "bound": 50, "text": "demonstrations 45"}
                ],
            }
        ],
        "numbers": {"pass_1": 0.3, "mixed": 0.22, "demos": 45, "rho": None},
        "warnings": [HOSTILE],
        "next_steps": ["agentrft run job.yaml --method reinforcement"],
        "cost": {"episodes": 2400, "hours": 0.5},
    }
    text = printed(decision_view(document))
    assert "BORDERLINE (collect data 40%)" in text
    assert "would be supervised fine-tuning (rule 10) with demonstrations ≥ 50 (is 45)" in text.replace("\n", " ")
    assert "rule 11: outcomes are mixed" in text
    assert "about 2,400 episodes, 30 min 00 s of playing" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
