"""`python` graders in Monty: the contract of the jailed ones, and the same grades wherever Monty can run them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from agentrft.data.rows import messages_of
from agentrft.errors import UserError
from agentrft.graders import build_grader
from agentrft.types import Grade, GradeError, Item, Sample, StopReason

EXAMPLES = Path(__file__).parents[2] / "examples"
IDIOMS = {
    "json": "import json\ndef grade(s, i): return float(json.loads(s['output_text'])['score'])",
    "regex": "import re\ndef grade(s, i): return float(bool(re.search(r'\\b(\\d+)\\s*%', s['output_text'])))",
    "token f1": (
        "from collections import Counter\ndef grade(s, i):\n"
        "    a, b = Counter(s['output_text'].lower().split()), Counter(i['answer'].lower().split())\n"
        "    same = sum((a & b).values())\n"
        "    return 0.0 if not same else 2 * same / (sum(a.values()) + sum(b.values()))"
    ),
    "normalised": (
        "import unicodedata\ndef grade(s, i):\n"
        "    plain = lambda text: unicodedata.normalize('NFKC', text).casefold().strip('. \\n')\n"
        "    return 1.0 if plain(s['output_text']) == plain(i['answer']) else 0.0"
    ),
    "near": (
        "import math\ndef grade(s, i):\n    try:\n        value = float(s['output_text'].replace(',', ''))\n"
        "    except ValueError:\n        return 0.0\n    return round(math.exp(-abs(value - 3)), 6)"
    ),
    "class": (
        "from dataclasses import dataclass\n\n@dataclass\nclass Part:\n    name: str\n    weight: float = 0.5\n\n"
        "    def worth(self, text): return self.weight * (self.name in text)\n\n"
        "def grade(s, i): return sum(part.worth(s['output_text']) for part in [Part('a'), Part('b')])"
    ),
}
ANSWERS = (
    "",
    "3",
    "Paris.",
    "ＰＡＲＩＳ",
    "a b",
    "b",
    '{"score": 0.25}',
    '{"score": 1e999}',
    "[1]",
    "50 %",
    "1,000",
    "the paris a",
)


def _document(source: str, isolation: str, **more: object) -> dict[str, object]:
    return {"type": "python", "name": "reward", "source": source, "timeout_s": 20, "isolation": isolation, **more}


async def _grades(document: dict[str, object], samples: list[Sample], item: Item) -> list[Grade]:
    grader = build_grader(document, EXAMPLES)
    try:
        return await grader.grade_group(samples, item)
    finally:
        await grader.close()


@pytest.mark.parametrize("name", IDIOMS)
async def test_common_graders_grade_as_in_the_jail(name, make_item, make_sample):
    samples, item = [make_sample(answer) for answer in ANSWERS], make_item(answer="Paris")
    jailed, in_monty = [await _grades(_document(IDIOMS[name], way), samples, item) for way in ("jail", "monty")]
    assert [grade.value for grade in in_monty] == [grade.value for grade in jailed]
    assert len({grade.value for grade in jailed}) > 1


def _demonstrated(example: str) -> list[tuple[Item, list[Sample]]]:
    """Rows with the demonstrated episode, the same with a wrong answer, cut off, and an answer without any work."""
    data, found = EXAMPLES / example / "data", []
    fields = {row["id"]: row for row in map(json.loads, (data / "train.jsonl").read_text().splitlines())}
    for line in (data / "demonstrations.jsonl").read_text().splitlines()[:6]:
        row = json.loads(line)
        messages = messages_of(row)
        item = Item(id=row["id"], messages=messages[:1], fields=fields[row["id"]])
        shown = Sample(output_text=messages[-1].content or "", messages=messages)
        wrong = dataclasses.replace(shown, output_text="nothing of it")
        cut = dataclasses.replace(shown, output_text="", stop_reason=StopReason.MAX_TURNS)
        guess = Sample(output_text=shown.output_text, messages=messages[:1])
        found.append((item, [shown, wrong, cut, guess]))
    return found


@pytest.mark.parametrize("example", ["filenav", "parcels", "staff", "units"])
async def test_the_examples_graders_grade_as_in_the_jail(example):
    documents = [
        {"type": "python", "name": "reward", "source_file": f"{example}/grader.py", "isolation": way}
        for way in ("jail", "monty")
    ]
    graders = [build_grader(document, EXAMPLES) for document in documents]
    for item, samples in _demonstrated(example):
        jailed, in_monty = [[grade.value for grade in await g.grade_group(samples, item)] for g in graders]
        assert in_monty == jailed
        assert jailed[0] >= 0.5
    for grader in graders:
        await grader.close()


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
        ("32512", "32512 (int)"),
        ("10 ** 100", "a number beyond 1e30 (int)"),
    ],
)
async def test_anything_but_a_number_in_range_is_no_grade(make_sample, make_item, expression, got):
    source = f"def grade(sample, item):\n    return {expression}\n"
    (grade,) = await _grades(_document(source, "monty"), [make_sample()], make_item())
    assert grade.value is None
    assert grade.reason == f"grader 'reward' returned {got}, expected a finite int or float from 0 to 1"


async def test_an_exception_is_no_grade_with_its_traceback_and_costs_no_other(make_sample, make_item):
    source = "def grade(sample, item):\n    return item['share'][sample['output_text']]\n"
    item = make_item(share={"a": 0.5, "b": 1})
    first, second, third = await _grades(_document(source, "monty"), list(map(make_sample, "axb")), item)
    assert (first.value, second.value, third.value) == (0.5, None, 1.0)
    assert (second.reason, second.error) == ("grader 'reward' raised KeyError: 'x'", GradeError.PYTHON_RUNTIME)
    assert second.traceback == (
        'Traceback (most recent call last):\n  File "<grader reward>", line 2, in grade\n'
        "    return item['share'][sample['output_text']]\nKeyError: 'x'\n"
    )


async def test_a_timeout_is_no_grade(make_sample, make_item):
    document = _document("def grade(sample, item):\n    while True: pass\n", "monty", timeout_s=0.3)
    (grade,) = await _grades(document, [make_sample()], make_item())
    assert (grade.value, grade.reason) == (None, "grader 'reward': it ran longer than 0.3 s and was stopped")


async def test_what_it_prints_goes_nowhere(make_sample, make_item, capfd):
    source = "def grade(sample, item):\n    print('loud')\n    return 1\n"
    (grade,) = await _grades(_document(source, "monty"), [make_sample()], make_item())
    assert (grade.value, capfd.readouterr()) == (1.0, ("", ""))


def test_a_source_that_monty_cannot_run_is_refused_with_everything_it_lacks():
    source = (
        "import difflib\nimport numpy as np\n\ndef grade(sample, item):\n"
        "    ratio = difflib.SequenceMatcher(None, sample['output_text'], 'x').ratio()\n"
        "    return float(np.mean([ratio, all(t['passed'] for t in run_code(sample['output_text'], []))]))\n"
    )
    with pytest.raises(UserError) as caught:
        build_grader(_document(source, "monty"), EXAMPLES, param="method.reinforcement.grader")
    assert (
        "no sandbox here can run the Python grader 'reward': no Monty: it cannot run this code, which needs module "
        in (caught.value.message)
    )
    assert "difflib (line 1), module numpy (line 2), run_code, whose code may use all of Python (line 6);" in (
        caught.value.message
    )
    assert (caught.value.code, caught.value.param) == ("sandbox_unavailable", "method.reinforcement.grader.isolation")
