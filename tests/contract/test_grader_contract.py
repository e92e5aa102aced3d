"""What every grader must do, run over each type. A new type joins by one document in `KINDS`."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrft.engines.openai_chat import open_judge
from agentrft.graders import GRADERS, build_grader
from agentrft.protocols import Grader
from agentrft.types import Grade, Item, Message, Sample, StopReason, ToolCall

_CHECK = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "ilike",
}
_PYTHON = {
    "type": "python",
    "name": "code",
    "timeout_s": 30,
    # as careless as graders are: it raises for most samples
    "source": "import json\ndef grade(sample, item):\n    return json.loads(sample['output_text'])['score']\n",
}
_SCORE = {
    "type": "score_model",
    "name": "judged",
    "model": "judge-1",
    "input": [{"role": "user", "content": "{{sample.output_text}} against {{item.answer}}"}],
    "base_url": "SERVER/v1",
}
KINDS = {
    "string_check": _CHECK,
    "text_similarity": {
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_json.text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "fuzzy_match",
    },
    "score_model": _SCORE,
    "label_model": {
        **_SCORE,
        "type": "label_model",
        "input": [{"role": "system", "content": "{{sample.output_json.text}} or {{item.answer}}?"}],
        "labels": ["yes", "no"],
        "passing_labels": ["yes"],
    },
    "python": _PYTHON,
    "endpoint": {"type": "endpoint", "url": "SERVER/grade", "headers": {"Authorization": "Bearer x"}},
    "multi": {
        "type": "multi",
        "name": "all",
        "graders": {"exact": _CHECK, "code": _PYTHON, "judged": _SCORE},
        "calculate_output": "log(exact) / code + judged",
    },
}

EVERY = {**KINDS, "python in Monty": {**_PYTHON, "isolation": "monty"}}
"""The types, and another sandbox of the same type."""

_ODD = [
    *("", " ", "\x00", "\ud800", "\ufffd", "a\u0301", "\u202e", "😀", "{{item.answer}}"),
    *("NaN", "1e999", "-0.0", "null", "True"),
    *('{"score": 0.5, "text": "yes"}', '{"score": NaN}', '{"score": 1e999}', '{"score": true}', '{"score": "1"}'),
    *('{"score": 32512}', '{"text": null}', "[" * 5000, "9" * 6000, "x" * 200_000),
]  # fmt: skip
_TEXTS = st.one_of(
    st.sampled_from(_ODD), st.text(max_size=40), st.text(alphabet=st.characters(codec=None), max_size=10)
)


@st.composite
def _samples(draw) -> Sample:
    text = draw(_TEXTS)
    calls = tuple(
        ToolCall(id=draw(_TEXTS), name=draw(_TEXTS), arguments=draw(_TEXTS))
        for _ in range(draw(st.integers(min_value=0, max_value=2)))
    )
    return Sample(
        output_text=text,
        output_tools=calls,
        messages=(Message(role="user", content=text), Message(role="assistant", tool_calls=calls)),
        stop_reason=draw(st.sampled_from(list(StopReason))),
        n_calls=draw(st.integers(min_value=0, max_value=9)),
    )


def _item(answer: object) -> Item:
    return Item(id="row-1", messages=(Message(role="user", content="q"),), fields={"answer": answer})


def _check(grade: Grade) -> None:
    assert isinstance(grade, Grade)
    assert (grade.value is None) != (grade.reason is None)
    if grade.value is not None:
        assert type(grade.value) is float
        assert math.isfinite(grade.value)
    else:
        assert grade.reason
    assert all(map(math.isfinite, grade.sub_grades.values()))


@pytest.fixture
def build(serve, answer, completion) -> Callable[[str], Grader]:
    """build(kind): a grader of that kind; its judge and its endpoint, on loopback, find their verdict in the answer."""

    def respond(asked):
        body = asked.json()
        if asked.path == "/grade":
            return answer(body=body["sample"]["output_text"].encode("utf-8", "replace"))
        text = body["messages"][-3]["content"].partition("\n")[2].rpartition("\n")[0]
        try:
            said = json.loads(text)["score"]
        except (ValueError, TypeError, KeyError, RecursionError):
            said = text
        return completion(json.dumps({"steps": [], "result": said}))

    url = serve(respond).url

    def build_one(kind: str) -> Grader:
        document = json.loads(json.dumps(EVERY[kind]).replace("SERVER", url))
        return build_grader(document, Path(), open_judge=open_judge)

    return build_one


def test_every_type_has_a_document():
    assert set(KINDS) == set(GRADERS)


@pytest.mark.parametrize("kind", EVERY)
def test_any_sample_gives_a_grade_and_never_raises(kind, build):
    grader = build(kind)
    with asyncio.Runner() as runner:

        @given(sample=_samples(), answer=st.one_of(_TEXTS, st.none(), st.integers(), st.lists(_TEXTS, max_size=2)))
        @settings(max_examples=25)
        def grade_one(sample: Sample, answer: object) -> None:
            _check(runner.run(grader.grade(sample, _item(answer), "trace_1")))

        grade_one()
        runner.run(grader.close())


@pytest.mark.parametrize("kind", EVERY)
async def test_many_at_once_are_graded_as_one_by_one(kind, build):
    grader = build(kind)
    samples = [Sample(output_text=f'{{"score": {k / 20}, "text": "{"yes" if k % 2 else "no"}"}}') for k in range(20)]
    item = _item("yes")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(grader.grade(sample, item, f"trace_{k}")) for k, sample in enumerate(samples)]
    together = [(task.result().value, task.result().reason) for task in tasks]
    alone = [await grader.grade(sample, item, "trace_0") for sample in samples]
    assert together == [(grade.value, grade.reason) for grade in alone]
    assert len(set(together)) > 1
    await grader.close()


@pytest.mark.parametrize("kind", EVERY)
async def test_closing_may_be_repeated_and_come_first(kind, build):
    grader = build(kind)
    await grader.close()
    await grader.close()
    used = build(kind)
    _check(await used.grade(Sample(output_text="x"), _item("x"), "trace_1"))
    await used.close()
    await used.close()
    _check(await used.grade(Sample(output_text="x"), _item("x"), "trace_1"))
