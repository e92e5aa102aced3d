"""A small but complete report, with hostile text in every place where a model or a tool can write."""

from __future__ import annotations

import pytest

from agentrft.report.model import (
    Comparison,
    NextStep,
    Report,
    Shown,
    Stage,
    StageFigures,
    StepPoint,
    ValidationPoint,
)
from agentrft.stats import Interval
from agentrft.types import Episode, Message, StopReason, ToolCall, ToolResult, Turn

HOSTILE = "</script><script>alert('owned')</script><img src=x onerror=alert(1)>\x1b]0;title\x07"


def interval(mean: float, low: float, high: float) -> Interval:
    return Interval(mean=mean, low=low, high=high, n_items=100, n_episodes=200)


def made_figures(reward: float) -> StageFigures:
    return StageFigures(
        reward=interval(reward, reward - 0.05, reward + 0.05),
        success=interval(0.5, 0.4, 0.6),
        calls=interval(2.0, 1.9, 2.1),
        parse_rate=interval(0.97, 0.95, 0.99),
        stop_reasons={"answered": 180, "max_turns": 19, "fault": 1},
    )


def made_episode(stop: StopReason = StopReason.ANSWERED) -> Episode:
    question = Message(role="user", content=f"What is the port? {HOSTILE}")
    call = ToolCall(id="call_0_0", name="grep", arguments='{"text": "billing", "path": "/"}')
    calling = Message(role="assistant", tool_calls=(call,))
    result = ToolResult(call_id=call.id, output=HOSTILE)
    answer = Message(role="assistant", content=f"4821 {HOSTILE}")
    return Episode(
        id="ep_000000000000000000000001",
        trace_id="trace_1",
        item_id="row-1",
        step=0,
        member=0,
        attempt=0,
        messages=(
            Message(role="system", content="Answer questions."),
            question,
            calling,
            Message(role="tool", content=result.output, tool_call_id=call.id),
            answer,
        ),
        turns=(Turn(reply=calling, results=(result,)), Turn(reply=answer)),
        stop_reason=stop,
    )


@pytest.fixture
def shown() -> Shown:
    return Shown(label="after reinforcement", episode=made_episode(), reward=0.85)


@pytest.fixture
def report(shown: Shown) -> Report:
    return Report(
        kind="agentrft quickstart",
        headline="Reward rose from 0.28 to 0.77",
        lede="Measured on unseen items.",
        facts=[("model", HOSTILE)],
        stages=[
            Stage(name="base", label="as it comes", figures={"test": made_figures(0.05)}),
            Stage(name="rft", label="after", figures={"test": made_figures(0.77), "new_names": made_figures(0.7)}),
        ],
        gains=[("RFT over base, test", interval(0.72, 0.65, 0.79)), ("worse", interval(-0.2, -0.3, -0.1))],
        steps=[StepPoint(step=1, reward=0.2, calls=3.0, success=0.1), StepPoint(step=2, reward=0.4, calls=2.5)],
        validations=[ValidationPoint(step=2, reward=0.45)],
        best_step=2,
        comparisons=[Comparison(question=HOSTILE, episodes=[shown, shown])],
        next_steps=[NextStep(what="talk to it", command="agentrft chat filenav")],
        notes=[HOSTILE],
        settings=[("seed", "0")],
        versions=[("torch", "2.13.0")],
    )
