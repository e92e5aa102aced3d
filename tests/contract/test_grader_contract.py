"""What every grader must do, run over each type. A new type joins by one document in `KINDS`."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrft.graders import GRADERS, build_grader
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
KINDS = {
    "string_check": _CHECK,
    "text_similarity": {
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_json.text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "fuzzy_match",
    },
    "python": _PYTHON,
    "multi": {
        "type": "multi",
        "name": "all",
        "graders": {"exact": _CHECK, "code": _PYTHON},
        "calculate_output": "log(exact) / code",
    },
}

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


def test_every_type_has_a_document():
    assert set(KINDS) == set(GRADERS)


@pytest.mark.parametrize("kind", KINDS)
def test_any_sample_gives_a_grade_and_never_raises(kind):
    grader = build_grader(KINDS[kind], Path())
    with asyncio.Runner() as runner:

        @given(sample=_samples(), answer=st.one_of(_TEXTS, st.none(), st.integers(), st.lists(_TEXTS, max_size=2)))
        @settings(max_examples=25)
        def grade_one(sample: Sample, answer: object) -> None:
            _check(runner.run(grader.grade(sample, _item(answer), "trace_1")))

        grade_one()
        runner.run(grader.close())


@pytest.mark.parametrize("kind", KINDS)
async def test_many_at_once_are_graded_as_one_by_one(kind):
    grader = build_grader(KINDS[kind], Path())
    samples = [Sample(output_text=f'{{"score": {k / 20}, "text": "{"yes" if k % 2 else "no"}"}}') for k in range(20)]
    item = _item("yes")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(grader.grade(sample, item, f"trace_{k}")) for k, sample in enumerate(samples)]
    together = [(task.result().value, task.result().reason) for task in tasks]
    alone = [await grader.grade(sample, item, "trace_0") for sample in samples]
    assert together == [(grade.value, grade.reason) for grade in alone]
    assert len(set(together)) > 1
    await grader.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_may_be_repeated_and_come_first(kind):
    grader = build_grader(KINDS[kind], Path())
    await grader.close()
    await grader.close()
    used = build_grader(KINDS[kind], Path())
    _check(await used.grade(Sample(output_text="x"), _item("x"), "trace_1"))
    await used.close()
    await used.close()
    _check(await used.grade(Sample(output_text="x"), _item("x"), "trace_1"))
