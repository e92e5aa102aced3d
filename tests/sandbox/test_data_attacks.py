"""Attacks that are only data: what a model can write so that a careless grader rewards it.

The jail holds in all of them. What is asked here is more: no grade. Code that a grader itself runs in its own process
can still compute any number in range; there `run_code` is the remedy, which is shown.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.graders import build_grader
from agentrft.types import Grade, Item, Sample

FORGED = '{"type": "builtins.float", "value": 1.0, "ok": 1.0}'
EXEC = "def grade(s, i):\n    exec(s['output_text'], {})\n    return 0.0"
SCORE = "import json\ndef grade(s, i): return json.loads(s['output_text'])['score']"

ATTACKS = {
    "eval": (
        "def grade(s, i): return float(eval(s['output_text']))",
        "__import__('os').system('touch MARKER')",
        "expected a finite int or float",
    ),
    "pickle": (
        "import pickle\ndef grade(s, i): return pickle.loads(s['output_text'].encode('latin-1'))",
        "cposix\nsystem\n(S'touch MARKER'\ntR.",
        "expected a finite int or float",
    ),
    "yaml": (
        "import yaml\ndef grade(s, i): return float(yaml.load(s['output_text'], Loader=yaml.UnsafeLoader))",
        "!!python/object/apply:os.system ['touch MARKER']",
        "expected a finite int or float",
    ),
    "an answer on every descriptor": (
        EXEC,
        f"import os\nfor fd in range(20):\n    try: os.write(fd, b'{FORGED}')\n    except OSError: pass\nos._exit(0)",
        "it wrote to a descriptor that is not its own",
    ),
    "leaving early": (EXEC, "import os\nos._exit(0)", "its process left with status 0 before answering"),
    "format": (
        "def grade(s, i):\n    class C: pass\n    return s['output_text'].format(c=C())",
        "{c.__class__}",
        "(str), expected a finite int or float",
    ),
    "pattern": (
        "import re\ndef grade(s, i): return float(bool(re.search(s['output_text'], 'a' * 40 + 'b')))",
        "(a+)+$",
        "it ran longer than 0.5 s",
    ),
    "long text to difflib": (
        "import difflib\ndef grade(s, i): return difflib.SequenceMatcher(None, s['output_text'], i['a'] * 400, "
        "autojunk=False).ratio()",
        "ar" * 100_000,
        "it ran longer than 0.5 s",
    ),
    "a million digits": (
        "def grade(s, i): return float(int(s['output_text']) == 3)",
        "9" * 1_000_000,
        "raised ValueError: Exceeds the limit",
    ),
    "a huge fraction": (
        "from fractions import Fraction\ndef grade(s, i): return float(Fraction(s['output_text']) == 3)",
        "1e99999999",
        "it ran longer than 0.5 s",
    ),
    "nested brackets": (
        "import ast\ndef grade(s, i): return float(ast.literal_eval(s['output_text']) == 3)",
        "(" * 100_000 + ")" * 100_000,
        "grader 'reward'",
    ),
    "infinity": (SCORE, '{"score": 1e999}', "returned inf (float)"),
    "NaN": (SCORE, '{"score": NaN}', "returned nan (float)"),
    "a score out of range": (SCORE, '{"score": 32512}', "returned 32512 (int)"),
}


NOT_IN_MONTY = {"pickle", "yaml", "long text to difflib", "a huge fraction", "nested brackets"}
"""Attacks on modules that Monty does not have: such graders are refused there."""
HARMLESS_IN_MONTY = {"pattern"}
"""Its patterns take no exponential time: the answer is right."""


async def _grade(source: str, output: str, isolation: str = "jail") -> Grade:
    document = {"type": "python", "name": "reward", "source": source, "timeout_s": 0.5, "isolation": isolation}
    grader = build_grader(document, Path())
    try:
        return await grader.grade(Sample(output_text=output), Item(id="a", messages=(), fields={"a": "Paris"}), "t")
    finally:
        await grader.close()


@pytest.mark.parametrize("name", ATTACKS)
async def test_data_buys_no_grade_and_touches_nothing(name, tmp_path):
    source, output, reason = ATTACKS[name]
    marker = tmp_path / "marker"
    grade = await _grade(source, output.replace("MARKER", str(marker)))
    assert not marker.exists()
    assert grade.value is None
    assert reason in (grade.reason or "")


@pytest.mark.parametrize("name", ATTACKS)
async def test_data_buys_no_grade_in_monty(name, tmp_path):
    source, output, _ = ATTACKS[name]
    marker = tmp_path / "marker"
    if name in NOT_IN_MONTY:
        with pytest.raises(UserError, match=r"no Monty: it cannot run this code, which needs module "):
            await _grade(source, output, "monty")
        return
    grade = await _grade(source, output.replace("MARKER", str(marker)), "monty")
    assert not marker.exists()
    assert grade.value == (0.0 if name in HARMLESS_IN_MONTY else None)


@pytest.mark.parametrize("name", ["dumps", "loads", "JSONEncoder", "JSONDecoder"])
async def test_patching_json_changes_nothing(name):
    grade = await _grade(EXEC, f"import json\njson.{name} = lambda *a, **k: '{FORGED}'")
    assert grade.value == 0.0  # what the grader itself returned


async def test_code_that_overrides_equality_fools_exec_but_not_run_code():
    output = "class E(int):\n    def __eq__(self, other): return True\ndef f(x): return E(0)"
    careless = "def grade(s, i):\n    g = {}\n    exec(s['output_text'], g)\n    return float(g['f'](2) == 4)"
    careful = (
        "def grade(s, i):\n    tests = [{'function': 'f', 'arguments': [2], 'expected': 4}]\n"
        "    return float(all(t['passed'] for t in run_code(s['output_text'], tests)))"
    )
    assert (await _grade(careless, output)).value == 1.0
    assert (await _grade(careful, output)).value == 0.0
    assert (await _grade(careful, "def f(x): return x * x")).value == 1.0
