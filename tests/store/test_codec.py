"""Episode records survive storing without losing a bit."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrft.errors import StoreFault
from agentrft.protocols import EpisodeRecord
from agentrft.store import codec
from agentrft.types import (
    Episode,
    Grade,
    GradeError,
    Intervention,
    Message,
    OutputStep,
    StopReason,
    TokenTrace,
    TokenUsage,
    ToolCall,
    ToolResult,
    Turn,
)

texts = st.text(st.characters(), max_size=12)  # surrogates and NUL included
floats = st.floats(allow_nan=False)
calls = st.builds(ToolCall, id=texts, name=texts, arguments=texts)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.none() | texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=st.none() | texts,
)
results = st.builds(
    ToolResult,
    call_id=texts,
    output=texts,
    is_error=st.booleans(),
    wall_s=floats,
    bytes_in=st.integers(0, 1 << 40),
    tries=st.integers(0, 4),
    interventions=st.lists(st.builds(Intervention, rule=texts, message=texts, enforced=st.booleans()), max_size=2).map(
        tuple
    ),
    shaping=st.lists(
        st.builds(OutputStep, name=texts, bytes_in=st.integers(0, 9), bytes_out=st.integers(0, 9)), max_size=2
    ).map(tuple),
    ends_episode=st.booleans(),
)
turns = st.builds(
    Turn,
    reply=messages,
    results=st.lists(results, max_size=2).map(tuple),
    malformed=st.none() | texts,
    start=st.integers(0, 1000),
    end=st.integers(0, 1000),
)
traces = st.builds(
    TokenTrace,
    ids=st.lists(st.integers(0, 1 << 20), max_size=8),
    trained=st.lists(st.booleans(), max_size=8),
    log_probs=st.lists(floats, max_size=8),
    prompt_tokens=st.integers(0, 8),
    policy_version=st.integers(0, 100),
)
episodes = st.builds(
    Episode,
    id=texts,
    trace_id=texts,
    item_id=texts,
    step=st.integers(0, 100),
    member=st.integers(0, 8),
    attempt=st.integers(0, 3),
    messages=st.lists(messages, max_size=2).map(tuple),
    turns=st.lists(turns, max_size=2).map(tuple),
    stop_reason=st.sampled_from(StopReason),
    tokens=st.none() | traces,
    fault=st.none() | texts,
    wall_s=floats,
)
counts = st.integers(0, 1 << 40)
usages = st.builds(TokenUsage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts)
grades = st.one_of(
    st.builds(
        Grade,
        value=floats,
        sub_grades=st.dictionaries(texts, floats, max_size=2),
        wall_s=floats,
        clipped=st.dictionaries(texts, floats, max_size=2),
        substituted=st.none() | texts,
        token_usage=st.dictionaries(texts, usages, max_size=2),
    ),
    st.builds(
        Grade,
        value=st.none(),
        reason=texts,
        traceback=st.none() | texts,
        error=st.none() | st.sampled_from(GradeError),
        is_fault=st.booleans(),
        token_usage=st.dictionaries(texts, usages, max_size=2),
    ),
)
records = st.builds(
    EpisodeRecord,
    job_id=texts,
    phase=st.sampled_from(["train", "validation", "test"]),
    stage=texts,
    episode=episodes,
    grade=grades,
    reward=st.none() | floats,
    advantage=st.none() | floats,
    extra=st.dictionaries(texts, st.none() | st.booleans() | texts | floats | st.lists(floats, max_size=2), max_size=2),
)


@given(records)
def test_a_record_comes_back_equal(record: EpisodeRecord) -> None:
    back = codec.decode(codec.encode(record))
    assert back == record
    assert isinstance(back.episode.stop_reason, StopReason)
    assert back.grade.error is None or isinstance(back.grade.error, GradeError)


def test_an_episode_that_an_older_agentrft_stored_can_be_read() -> None:
    document = codec.to_json(example([-0.5]))
    # As format 1 wrote grades: value, reason, sub_grades, traceback, wall_s.
    old = {"value": 0.5, "reason": None, "sub_grades": {"exact": 1.0}, "traceback": None, "wall_s": 0.25}
    back = codec.decode(zlib.compress(json.dumps({**document, "format": 1, "grade": old}).encode()))
    assert back.grade == Grade(value=0.5, sub_grades={"exact": 1.0}, wall_s=0.25)


def test_the_parts_of_a_multi_grader_come_back() -> None:
    parts = {"a": Grade(value=1.0, token_usage={"m": TokenUsage(prompt_tokens=3)}), "b": Grade(value=None, reason="?")}
    record = dataclasses.replace(example([-0.5]), grade=Grade(value=None, reason="part 'b': ?", parts=parts))
    assert codec.decode(codec.encode(record)).grade.parts == parts


def example(log_probs: list[float]) -> EpisodeRecord:
    n = len(log_probs)
    trace = TokenTrace(ids=[7] * n, trained=[True] * n, log_probs=log_probs, prompt_tokens=0, policy_version=0)
    episode = Episode(
        id="ep_1",
        trace_id="trace_1",
        item_id="row-1",
        step=0,
        member=0,
        attempt=0,
        messages=(),
        turns=(),
        stop_reason=StopReason.ANSWERED,
        tokens=trace,
    )
    return EpisodeRecord(job_id="j", phase="train", stage="rft", episode=episode, grade=Grade(value=1.0))


def test_tool_results_come_back_with_what_was_done_to_them() -> None:
    result = ToolResult(
        call_id="c",
        output="x",
        tries=2,
        interventions=(Intervention(rule="budgets.calls", message="used up", enforced=False),),
        shaping=(OutputStep(name="table", bytes_in=90, bytes_out=40),),
        ends_episode=True,
    )
    turn = Turn(reply=Message(role="assistant", content=""), results=(result,))
    record = example([-0.5])
    record = dataclasses.replace(record, episode=dataclasses.replace(record.episode, turns=(turn,)))
    assert codec.decode(codec.encode(record)) == record
    # format 2 knew less of a result
    document = json.loads(zlib.decompress(codec.encode(record)))
    document["format"] = 2
    document["episode"]["turns"][0]["results"] = [{"call_id": "c", "output": "x", "is_error": False}]
    back = codec.decode(zlib.compress(json.dumps(document).encode()))
    assert back.episode.turns[0].results == (ToolResult(call_id="c", output="x"),)


def test_log_probs_come_back_bit_for_bit() -> None:
    values = [-0.0, 5e-324, -1 / 3, 0.1 + 0.2, -1.7976931348623157e308, math.inf, -math.inf, math.nan]
    tokens = codec.decode(codec.encode(example(values))).episode.tokens
    assert tokens
    assert [struct.pack("<d", value) for value in tokens.log_probs] == [struct.pack("<d", value) for value in values]


def test_a_typical_trace_is_stored_compactly() -> None:
    # 400 tokens of which 60 were generated: about 18 digits for each log-prob that is not zero, little else.
    log_probs = [0.0] * 340 + [-1 / (3 + i) for i in range(60)]
    assert len(codec.encode(example(log_probs))) < 2_000


@pytest.mark.parametrize("damaged", [b"", b"not zlib", zlib.compress(b"{not json"), codec.encode(example([-0.5]))[:-9]])
def test_damage_is_a_fault_of_the_store(damaged: bytes) -> None:
    with pytest.raises(StoreFault, match="a stored episode is damaged"):
        codec.decode(damaged)


def test_a_newer_format_is_refused() -> None:
    document = {**codec.to_json(example([-0.5])), "format": 99}
    with pytest.raises(StoreFault, match="has format 99, this agentrft reads up to 4; upgrade"):
        codec.decode(zlib.compress(json.dumps(document).encode()))
