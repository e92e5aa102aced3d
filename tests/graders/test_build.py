"""Grader documents: what is accepted, what is said about the others, and grading whole episodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrft.errors import ToolFault, UserError
from agentrft.graders import GRADERS, build_grader, grade_episode, item_paths, parse_grader
from agentrft.types import Episode, Grade, GradeError, Message, StopReason, Turn

CHECK = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
SIMILAR = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{sample.output_text}}",
    "reference": "{{ item.deep.answers[0] }} {{item.answer}}",
    "evaluation_metric": "fuzzy_match",
}
PYTHON = {"type": "python", "name": "code", "source": "def grade(sample, item):\n    return item['points']\n"}
MULTI = {
    "type": "multi",
    "name": "all",
    "graders": {"exact": CHECK, "near": SIMILAR, "code": PYTHON},
    "calculate_output": "0.5 * exact + 0.3 * near + 0.2 * code",
}


@pytest.mark.parametrize("document", [CHECK, SIMILAR, PYTHON, MULTI], ids=lambda d: d["type"])
def test_documents_round_trip_and_have_a_threshold(document):
    spec = parse_grader(document)
    assert spec.type in GRADERS
    assert spec.pass_threshold == 0.5
    assert parse_grader(spec.model_dump(mode="json")) == spec
    assert parse_grader({**document, "pass_threshold": 0.9}).pass_threshold == 0.9


def test_item_paths_are_those_of_all_parts():
    assert item_paths(parse_grader(MULTI)) == (("answer",), ("deep", "answers", 0))
    assert item_paths(parse_grader(PYTHON)) == ()


@pytest.mark.parametrize(
    ("document", "start"),
    [
        (
            {},
            "`grader`: Unable to extract tag using discriminator 'type', got {}; expected one of the types",
        ),
        ({"type": "endpont"}, "`grader`: Input tag 'endpont' found using 'type' does not match"),
        ({"type": "endpoint"}, "`grader.url`: Field required; next step"),
        ({**CHECK, "operation": "neq"}, "`grader.operation`: Input should be 'eq', 'ne', 'like' or 'ilike', got 'neq'"),
        ({**CHECK, "refrence": "x"}, "`grader.refrence`: Extra inputs are not permitted, got 'x'"),
        ({k: v for k, v in CHECK.items() if k != "name"}, "`grader.name`: Field required"),
        (
            {**CHECK, "input": "{{sample.text}}"},
            "`grader.input`: got {{sample.text}}, expected one of sample.output",
        ),
        (
            {**CHECK, "reference": "{{answer}}"},
            "`grader.reference`: got {{answer}}, expected a reference such as",
        ),
        (
            {**CHECK, "pass_threshold": float("nan")},
            "`grader.pass_threshold`: Input should be a finite number",
        ),
        ({**PYTHON, "source_file": "g.py"}, "`grader`: got both of `source` and `source_file`, expected one of them"),
        ({"type": "python", "name": "n"}, "`grader`: got neither of `source` and `source_file`"),
        (
            {**PYTHON, "range": [1, 0]},
            "`grader.range`: got [1.0, 0.0], expected two finite numbers",
        ),
        ({**PYTHON, "timeout_s": 0}, "`grader.timeout_s`: Input should be greater than 0, got 0"),
        ({**MULTI, "graders": {}}, "`grader.graders`: Dictionary should have at least 1 item"),
        ({**MULTI, "graders": {"m": MULTI}}, "`grader.graders.m`: Input tag 'multi' found"),
        (
            {**MULTI, "graders": {"python": {**CHECK, "operation": "is"}}},
            "`grader.graders.python.operation`: Input should be 'eq', 'ne', 'like' or 'ilike', got 'is'",
        ),
        ({**MULTI, "graders": {"min": CHECK}}, "`grader`: got the part name 'min', expected letters, digits and '_'"),
        ({**MULTI, "graders": {"a b": CHECK}}, "`grader`: got the part name 'a b'"),
        (
            {**MULTI, "calculate_output": "exact + gone"},
            "`grader`: `calculate_output` names 'gone', expected one of",
        ),
        ({**MULTI, "calculate_output": "exact +"}, "`grader`: the formula ends early"),
        ({**MULTI, "invalid_grade": "none"}, "`grader.invalid_grade`: Input should be a valid number"),
        ({**MULTI, "invalid_grade": float("nan")}, "`grader.invalid_grade`: Input should be a finite number"),
        (
            {**MULTI, "graders": {"judged": {"type": "score_model", "name": "j", "model": "m", "input": []}}},
            "`grader.graders.judged.input`: Tuple should have at least 1 item",
        ),
    ],
)
def test_bad_documents(document, start):
    with pytest.raises(UserError) as caught:
        parse_grader(document)
    assert caught.value.message.startswith(start)
    assert caught.value.message.endswith("next step: see docs/graders.md")
    assert caught.value.code == "invalid_grader"
    assert len(caught.value.message) < 400


def test_the_field_to_blame_is_below_the_given_one():
    with pytest.raises(UserError) as caught:
        build_grader({**CHECK, "operation": "neq"}, Path(), param="method.reinforcement.grader")
    assert caught.value.param == "method.reinforcement.grader.operation"
    broken = {**MULTI, "graders": {"code": {**PYTHON, "source": "x = 1"}}, "calculate_output": "code"}
    with pytest.raises(UserError) as caught:
        build_grader(broken, Path())
    assert caught.value.param == "grader.graders.code"


async def test_multi_joins_its_parts(make_sample, make_item):
    grader = build_grader(MULTI, Path())
    item = make_item(answer="ab", deep={"answers": ["ab"]}, points=0.5)
    grade = await grader.grade(make_sample("ab"), item, "t")
    # near: "ab" against "ab ab", 2 * 2 matching characters / 7; 0.5 * 1 + 0.3 * 4/7 + 0.2 * 0.5
    assert grade.value == pytest.approx(0.5 + 0.3 * 4 / 7 + 0.1)
    assert grade.sub_grades == {"exact": 1.0, "near": pytest.approx(4 / 7), "code": 0.5}
    await grader.close()


async def test_multi_without_one_part_is_no_grade(make_sample, make_item):
    grader = build_grader(MULTI, Path())
    grade = await grader.grade(make_sample("ab"), make_item(answer="ab", deep={"answers": ["x"]}), "t")
    assert grade.value is None
    assert grade.reason == "part 'code': grader 'code' raised KeyError: 'points'"
    assert "item['points']" in grade.traceback
    assert grade.sub_grades.keys() == {"exact", "near"}
    await grader.close()


async def test_multi_without_a_result_is_no_grade(make_sample, make_item):
    document = {**MULTI, "graders": {"exact": CHECK}, "calculate_output": "1 / exact"}
    grade = await build_grader(document, Path()).grade(make_sample("no"), make_item(answer="ab"), "t")
    assert grade.value is None
    assert grade.reason == "`calculate_output` has no result: float division by zero"
    assert grade.sub_grades == {"exact": 0.0}
    assert grade.error is GradeError.FORMULA


@pytest.mark.parametrize(
    ("formula", "said", "substituted", "has_traceback"),
    [
        ("exact + code", "ab", "part 'code': grader 'code' raised KeyError: 'points'", True),
        ("1 / exact", "no", "`calculate_output` has no result: float division by zero", False),
    ],
)
async def test_invalid_grade_is_used_only_where_it_is_given_and_says_so(
    make_sample, make_item, formula, said, substituted, has_traceback
):
    parts = {"exact": CHECK, "code": PYTHON} if "code" in formula else {"exact": CHECK}
    document = {**MULTI, "graders": parts, "calculate_output": formula, "invalid_grade": -0.5}
    grader = build_grader(document, Path())
    grade = await grader.grade(make_sample(said), make_item(answer="ab"), "t")
    assert (grade.value, grade.reason, grade.substituted) == (-0.5, None, substituted)
    # Exceptions go on being counted: a grader that raises all the time still fails the job.
    assert bool(grade.traceback) == has_traceback
    await grader.close()


async def test_invalid_grade_is_not_touched_while_all_parts_have_numbers(make_sample, make_item):
    document = {**MULTI, "graders": {"exact": CHECK}, "calculate_output": "exact", "invalid_grade": -0.5}
    grade = await build_grader(document, Path()).grade(make_sample("no"), make_item(answer="ab"), "t")
    assert (grade.value, grade.substituted) == (0.0, None)


def _episode(stop_reason: StopReason, fault: str | None = None) -> Episode:
    reply = Message(role="assistant", content="ab")
    return Episode(
        id="ep_1", trace_id="trace_7", item_id="row-1", step=0, member=0, attempt=0,
        messages=(reply,), turns=(Turn(reply=reply),), stop_reason=stop_reason, fault=fault,
    )  # fmt: skip


async def test_an_episode_is_graded_and_timed(make_item):
    grade = await grade_episode(build_grader(CHECK, Path()), _episode(StopReason.ANSWERED), make_item(answer="ab"))
    assert grade.value == 1.0
    assert grade.wall_s > 0


async def test_a_fault_is_not_graded(make_item):
    grade = await grade_episode(
        build_grader(CHECK, Path()), _episode(StopReason.FAULT, "ls died"), make_item(answer="")
    )
    assert (grade.value, grade.reason) == (None, "the episode is a fault: ls died")


class _Raising:
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.trace_ids: list[str] = []

    async def grade(self, sample, item, trace_id) -> Grade:
        self.trace_ids.append(trace_id)
        raise self.error

    async def close(self) -> None: ...


async def test_a_grader_that_raises_costs_one_grade(make_item):
    grader = _Raising(ToolFault("endpoint down"))
    grade = await grade_episode(grader, _episode(StopReason.ANSWERED), make_item())
    assert grade.reason == "tool: endpoint down"
    assert grade.is_fault
    assert grader.trace_ids == ["trace_7"]
    grade = await grade_episode(_Raising(KeyError("x")), _episode(StopReason.ANSWERED), make_item())
    assert grade.reason == "the grader raised KeyError: 'x'"
    assert not grade.is_fault
    assert "raise self.error" in grade.traceback


@pytest.mark.parametrize("bad", [{"value": 1.0, "is_fault": True}, {"value": 1.0, "reason": "x"}, {"value": None}])
def test_a_grade_is_a_number_or_a_reason_and_a_fault_is_no_number(bad):
    with pytest.raises(ValueError):
        Grade(**bad)
