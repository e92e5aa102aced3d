"""`python` graders: what counts as a grade, and what a user is told about a source that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.graders import GroupGrader, build_grader
from agentrft.types import Grade, GradeError, Item, Message, Sample


def _document(source: str, **more: object) -> dict[str, object]:
    return {"type": "python", "name": "reward", "source": source, "timeout_s": 20, **more}


def _returning(expression: str, **more: object) -> dict[str, object]:
    return _document(f"def grade(sample, item):\n    return {expression}\n", **more)


async def _grade(document, sample, item):
    grader = build_grader(document, Path())
    try:
        return await grader.grade(sample, item, "trace_1")
    finally:
        await grader.close()


async def test_the_function_sees_sample_and_item(trajectory, make_item):
    source = (
        "def grade(sample, item):\n"
        "    last = sample['messages'][-1]['tool_calls'][0]['function']\n"
        "    assert sample['output_tools'][0]['function'] == last, last\n"
        "    assert sample['output_text'] == '' and sample['output_json'] is None\n"
        "    assert sample['choices'][0]['finish_reason'] == 'tool_calls'\n"
        "    assert (sample['n_calls'], sample['stop_reason']) == (2, 'max_turns')\n"
        "    assert sample['messages'][2] == {'role': 'tool', 'content': 'a b', 'tool_call_id': 'call_0_0'}\n"
        "    return item['share'] if last['name'] == item['want'] else 0\n"
    )
    grade = await _grade(_document(source), trajectory, make_item(want="cat", share=0.25))
    assert (grade.value, grade.reason) == (0.25, None)
    assert grade.wall_s > 0


@pytest.mark.parametrize(("expression", "value"), [("1", 1.0), ("0.5", 0.5), ("0", 0.0), ("-0.0", 0.0), ("1.0", 1.0)])
async def test_ints_and_floats_in_range_are_grades(make_sample, make_item, expression, value):
    assert (await _grade(_returning(expression), make_sample(), make_item())).value == value


@pytest.mark.parametrize(
    ("expression", "got"),
    [
        ("True", "True (bool)"),
        ("'0.5'", "'0.5' (str)"),
        ("None", "None (NoneType)"),
        ("[0.5]", "[0.5] (list)"),
        ("float('nan')", "nan (float)"),
        ("float('inf')", "inf (float)"),
        ("1.0000001", "1.0000001 (float)"),
        ("-1", "-1 (int)"),
        ("32512", "32512 (int)"),
        ("10 ** 100", "a number beyond 1e30 (int)"),
        ("__import__('fractions').Fraction(1, 2)", "None (fractions.Fraction)"),
        ("__import__('numpy').float64(0.5)", "0.5 (numpy.float64)"),
        ("(lambda: (yield))()", "None (generator)"),
    ],
)
async def test_anything_else_is_no_grade_and_never_clamped(make_sample, make_item, expression, got):
    grade = await _grade(_returning(expression), make_sample(), make_item())
    assert grade.value is None
    assert grade.reason == f"grader 'reward' returned {got}, expected a finite int or float from 0 to 1"


async def test_the_range_is_the_users(make_sample, make_item):
    assert (await _grade(_returning("-3", range=[-5, 8]), make_sample(), make_item())).value == -3.0
    grade = await _grade(_returning("9", range=[-5, 8]), make_sample(), make_item())
    assert grade.reason == "grader 'reward' returned 9 (int), expected a finite int or float from -5 to 8"


async def test_an_exception_is_no_grade_with_its_traceback(make_sample, make_item):
    grade = await _grade(_returning("item['gone']"), make_sample(), make_item())
    assert grade.value is None
    assert grade.reason == "grader 'reward' raised KeyError: 'gone'"
    assert grade.traceback is not None
    assert "return item['gone']" in grade.traceback
    assert "worker.py" not in grade.traceback


async def test_a_timeout_is_no_grade(make_sample, make_item):
    document = _document("def grade(sample, item):\n    while True: pass\n", timeout_s=0.3)
    grade = await _grade(document, make_sample(), make_item())
    assert (grade.value, grade.reason) == (None, "grader 'reward': it ran longer than 0.3 s and was stopped")


async def test_what_cannot_be_handed_over_is_no_grade(make_sample, make_item):
    grade = await _grade(_returning("1"), make_sample(), make_item(odd=object()))
    assert grade.value is None
    assert grade.reason.startswith("the item cannot be handed to grader 'reward': Object of type object")


async def test_a_source_file_is_read_when_the_grader_is_built(tmp_path, make_sample, make_item):
    path = tmp_path / "parts" / "grader.py"
    path.parent.mkdir()
    path.write_text("def grade(sample, item):\n    return 1 / 0\n")
    grader = build_grader({"type": "python", "name": "r", "source_file": "parts/grader.py"}, tmp_path)
    path.unlink()
    grade = await grader.grade(make_sample(), make_item(), "t")
    assert str(path) in grade.traceback
    assert "return 1 / 0" in grade.traceback
    await grader.close()


@pytest.mark.parametrize(
    "source",
    [
        "def grade(sample, item, weight=2): return 1",
        "def grade(*args): return 1",
        "def grade(sample, item, /, *, strict=True): return 1",
        "grade = lambda sample, item: 1",
        "class Grade: pass\ndef grade(a, b): return '\\d'",  # an odd escape is the user's business
    ],
)
def test_fitting_sources_are_taken(source):
    build_grader(_document(source), Path())


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def grade(sample, item:\n  pass", "line 1: '(' was never closed, got 'def grade(sample, item:'"),
        ("x = 1", "defines no `grade`; expected def grade(sample, item) -> float"),
        ("def grade(sample): return 1", "got `grade(sample)`; expected grade(sample, item)"),
        ("def grade(a, b, c): return 1", "got `grade(a, b, c)`"),
        ("def grade(a, b, *, c): return 1", "got `grade(a, b, *, c)`"),
        ("async def grade(a, b): return 1", "`grade` is async; expected a plain function"),
        ("x = '\0'", "line 1: source code string cannot contain null bytes"),
        ("#" * 256_001, "is larger than 256000 bytes"),
    ],
)
def test_unfit_sources_are_refused_at_build(source, what):
    with pytest.raises(UserError, match="unusable grader source: <grader reward>") as caught:
        build_grader(_document(source), Path(), param="method.reinforcement.grader")
    assert what in caught.value.message
    assert "next step" in caught.value.message
    assert caught.value.param == "method.reinforcement.grader"


def test_an_absent_source_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the grader .*gone.py: No such file.*check `source_file`"):
        build_grader({"type": "python", "name": "r", "source_file": "gone.py"}, tmp_path)
    (tmp_path / "latin.py").write_bytes(b"# \xe9")
    with pytest.raises(UserError, match="it is not UTF-8"):
        build_grader({"type": "python", "name": "r", "source_file": "latin.py"}, tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: float\n"
        "def grade(sample, item):\n    return P(0.5).x\n",
        "from __future__ import annotations\nfrom typing import Optional\nimport pydantic\n"
        "class P(pydantic.BaseModel):\n    x: Optional[float]\n"
        "def grade(sample, item):\n    return P.model_validate({'x': 0.5}).x\n",
        "import pickle\nclass P:\n    x = 0.5\n"
        "def grade(sample, item):\n    return pickle.loads(pickle.dumps(P())).x\n",
        "import sys\ndef grade(sample, item):\n    return 0.5 if sys.modules[__name__].grade is grade else 0.0\n",
        "try:\n    import nowhere\nexcept ImportError:\n    def grade(sample, item):\n        return 0.5\n",
        "\ufeffdef grade(sample, item):\n    return 0.5\n",
    ],
)
async def test_a_grader_file_is_a_module_like_any_other(source: str, tmp_path: Path) -> None:
    (tmp_path / "grader.py").write_text(source, encoding="utf-8")
    document = {"type": "python", "name": "reward", "source_file": "grader.py"}
    grader = build_grader(document, tmp_path)
    try:
        grade = await grader.grade(Sample(output_text=""), Item(id="a", messages=()), "t")
    finally:
        await grader.close()
    assert (grade.value, grade.reason) == (0.5, None)


async def test_a_number_beyond_all_floats_is_no_grade() -> None:
    grade = await _grade(_returning("10**400"), Sample(output_text=""), Item(id="a", messages=()))
    assert grade.value is None
    assert "expected a finite int or float from 0 to 1" in (grade.reason or "")


async def _group(source: str, texts: list[str], **more: object) -> list[Grade]:
    grader = build_grader(_document(source, **more), Path())
    assert isinstance(grader, GroupGrader)
    try:
        return await grader.grade_group([Sample(output_text=text) for text in texts], Item(id="a", messages=()))
    finally:
        await grader.close()


WHERE = """
import os, time
def grade(sample, item):
    text = sample["output_text"]
    if text == "die": os._exit(4)
    if text == "raise": raise ValueError(text)
    if text == "hang": time.sleep(60)
    if text == "big": return 7
    if text == "slow": time.sleep(0.05)
    return os.getpid() / 2**32
"""


async def test_a_group_shares_a_process_and_groups_do_not():
    grades = [grade.value for grade in await _group(WHERE, ["a"] * 20)]
    assert None not in grades
    assert [len(set(part)) for part in (grades[:16], grades[16:], grades)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("die", "its process left with status 4 before answering"),
        ("raise", "ValueError: raise"),
        ("hang", "it ran longer than 1 s and was stopped"),
        ("big", "returned 7 (int), expected a finite int or float from 0 to 1"),
    ],
)
async def test_whoever_fails_in_company_costs_only_its_own_grade(bad, reason):
    grades = await _group(WHERE, ["a", bad, "b", bad, "c"], timeout_s=1)
    assert [grade.value is None for grade in grades] == [False, True, False, True, False]
    assert all(reason in (grades[n].reason or "") for n in (1, 3))


async def test_one_whose_neighbour_poisons_the_process_is_graded_alone():
    source = """
import builtins
def grade(sample, item):
    if sample["output_text"] == "poison":
        builtins.float = None
        return 0.0
    return float("0.5")
"""
    assert [grade.value for grade in await _group(source, ["a", "poison", "b", "c"])] == [0.5, 0.0, 0.5, 0.5]


async def test_a_slow_function_gets_a_process_for_each():
    grader = build_grader(_document(WHERE), Path())
    item = Item(id="a", messages=())
    try:
        await grader.grade(Sample(output_text="slow"), item, "t")
        slow = await grader.grade_group([Sample(output_text="slow")] * 3, item)
        await grader.grade(Sample(output_text="a"), item, "t")
        quick = await grader.grade_group([Sample(output_text="a")] * 3, item)
    finally:
        await grader.close()
    assert [len({grade.value for grade in grades}) for grades in (slow, quick)] == [3, 1]


async def test_a_closed_grader_gives_a_group_reasons():
    grader = build_grader(_document(WHERE), Path())
    await grader.close()
    grades = await grader.grade_group([Sample(output_text="a")] * 3, Item(id="a", messages=()))
    assert [grade.error for grade in grades] == [GradeError.PYTHON_SERVER] * 3


async def test_the_grades_of_filenav_are_the_same_in_company_and_alone():
    folder = Path(__file__).parents[2] / "examples" / "filenav"
    document = {"type": "python", "name": "filenav", "source_file": "grader.py"}
    item = Item(id="a", messages=(), fields={"service": "auth", "key": "port", "answer": "7", "file": "/a.conf"})
    seen = ("auth.port = 7", "auth.host = x", "error: auth.port = 7")
    samples = [
        Sample(output_text=text, messages=(Message(role="tool", content=shown, tool_call_id="c"),), n_calls=calls)
        for text in ("7", "8", "")
        for shown, calls in zip(seen, (1, 2, 3), strict=True)
    ]
    grader = build_grader(document, folder)
    try:
        alone = [(await grader.grade(sample, item, "t")).value for sample in samples]
        group = [grade.value for grade in await grader.grade_group(samples, item)]
    finally:
        await grader.close()
    assert group == alone
    # right with the line seen; nothing but the service seen, at 0.05 × 0.85; wrong at 0.2; an error shows nothing
    assert alone == pytest.approx([1.0, 0.0425, 0.0, 0.2, 0.0425, 0.0, 0.0, 0.0, 0.0])
