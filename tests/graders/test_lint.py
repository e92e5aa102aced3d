"""The lint of Python graders: each rule fires on a bad example and stays silent on a good one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentrft.graders.lint import LintWarning, lint

EXAMPLES = Path(__file__).parents[2] / "examples"

BAD = {
    "eval": ("code", 'def grade(sample, item):\n    return float(eval(sample["output_text"]))'),
    "exec": ("code", "def grade(sample, item):\n    exec(item['setup'])\n    return 1.0"),
    "builtins": ("code", "import builtins\ndef grade(s, item):\n    return builtins.eval(s['output_text'])"),
    "compile": ("code", 'def grade(s, i):\n    return 1.0 if compile(s["output_text"], "", "exec") else 0.0'),
    "helper": ("code", "def read(text):\n    return eval(text)\ndef grade(s, i):\n    return read(s['output_text'])"),
    "pickle": ("pickle", "import pickle\ndef grade(s, i):\n    return pickle.loads(s['output_text'].encode())"),
    "from pickle": ("pickle", "from pickle import loads as rd\ndef grade(s, i):\n    return rd(b'')"),
    "dill": ("pickle", "import dill as d\ndef grade(s, i):\n    return d.loads(b'')"),
    "marshal": ("pickle", "import marshal\ndef grade(s, i):\n    return marshal.loads(b'')"),
    "yaml": ("yaml", "import yaml\ndef grade(s, i):\n    return yaml.load(s['output_text'], Loader=yaml.Loader)"),
    "yaml bare": ("yaml", "import yaml\ndef grade(s, i):\n    return yaml.load(s['output_text'])"),
    "sympify": ("sympy", "import sympy\ndef grade(s, i):\n    return float(sympy.sympify(s['output_text']))"),
    "parse_expr": (
        "sympy",
        "from sympy.parsing.sympy_parser import parse_expr\ndef grade(s, i):\n    return float(parse_expr('1'))",
    ),
    "format": ("format", 'def grade(sample, item):\n    return len(sample["output_text"].format(item=item))'),
    "format_map": ("format", "def grade(s, i):\n    text = s['output_text']\n    return len(text.format_map(i))"),
    "format of f-string": ("format", "def grade(s, i):\n    t = f\"<{s['output_text']}>\"\n    return t.format(i=i)"),
    "format in loop": ("format", "def grade(s, i):\n    for m in s['messages']:\n        m['content'].format(i)"),
    "search": ("pattern", "import re\ndef grade(s, i):\n    return bool(re.search(s['output_text'], 'x')) * 1.0"),
    "compile pattern": ("pattern", "import re\ndef grade(s, i):\n    p = '^' + s['output_text']\n    re.compile(p)"),
    "from re": (
        "pattern",
        "from re import sub\ndef grade(s, i):\n    return len(sub(pattern=s['output_text'], repl='', string=''))",
    ),
    "helper's pattern": (
        "pattern",
        "import re\ndef find(pattern, text):\n    return len(re.findall(pattern, text))\n"
        "def grade(s, i):\n    return find(s['output_text'], i['log'])",
    ),
    "helper by keyword": (
        "format",
        "def fill(item, *, form):\n    return form.format(item)\n"
        "def grade(s, i):\n    return len(fill(i, form=s['output_text']))",
    ),
    "whole sample to a helper": (
        "pattern",
        "import re\ndef answer(sample):\n    return sample['output_text'].strip()\n"
        "def grade(s, i):\n    return bool(re.match(answer(s), i['answer'])) * 1.0",
    ),
    "helper's helper": (
        "pattern",
        "import re\ndef outer(text):\n    return inner('x', text)\ndef inner(subject, pattern):\n"
        "    return len(re.split(pattern, subject))\ndef grade(s, i):\n    return outer(s['output_text'])",
    ),
    "helper that calls itself": (
        "format",
        "def walk(node, depth):\n    if depth: return walk(node, depth - 1)\n    return node.format()\n"
        "def grade(s, i):\n    return len(walk(s['output_text'], 3))",
    ),
    "starred": (
        "pattern",
        "import re\ndef find(a, b):\n    return len(re.findall(b, a))\n"
        "def grade(s, i):\n    return find(*(s['output_text'], 'x'))",
    ),
    "rest of the arguments": (
        "format",
        "def fill(first, *rest):\n    return rest[0].format(first)\n"
        "def grade(s, i):\n    return len(fill('x', s['output_text']))",
    ),
    "defined below": (
        "format",
        "def grade(s, i):\n    return late(s)\ndef late(sample):\n    return len(sample['output_text'].format())",
    ),
    "within grade": (
        "format",
        "def grade(s, i):\n    def inner(text):\n        return text.format()\n    return len(inner(s['output_text']))",
    ),
}

GOOD = {
    "json": "import json\ndef grade(s, i):\n    return float(json.loads(s['output_text']))",
    "re.compile is not compile": "import re\nP = re.compile('a+')\ndef grade(s, i):\n    return 1.0",
    "json.load is not pickle": "from json import loads\ndef grade(s, i):\n    return loads(s['output_text'])",
    "yaml safe": "import yaml\ndef grade(s, i):\n    return yaml.load(s['output_text'], Loader=yaml.SafeLoader)",
    "yaml.safe_load": "import yaml\ndef grade(s, i):\n    return yaml.safe_load(s['output_text'])",
    "sample as argument": "def grade(s, i):\n    return len('{}'.format(s['output_text']))",
    "template of the item": "def grade(s, i):\n    return len(i['template'].format(answer=s['output_text']))",
    "pattern of the item": "import re\ndef grade(s, i):\n    return len(re.findall(i['pattern'], s['output_text']))",
    "escaped": "import re\ndef grade(s, i):\n    p = re.escape(s['output_text'])\n    return len(re.findall(p, 'x'))",
    "chosen by the sample": "import re\nP = {'a': 'x'}\ndef grade(s, i):\n    re.findall(P[s['output_text']], 'x')",
    "text in a pattern's subject": "import re\ndef grade(s, i):\n    return len(re.sub('a', s['output_text'], 'b'))",
    "helper with a constant": (
        "import re\ndef count(pattern, text):\n    return len(re.findall(pattern, text))\n"
        "def grade(s, i):\n    return count('[0-9]+', s['output_text']) + count(i['pattern'], 'x')"
    ),
    "helper that returns a constant": (
        "import re\ndef pattern_for(text):\n    return r'[0-9]+' if len(text) > 3 else r'[a-z]+'\n"
        "def grade(s, i):\n    return len(re.findall(pattern_for(s['output_text']), 'x'))"
    ),
    "helper for sample and item": (
        "import re\ndef norm(text):\n    return text.strip()\n"
        "def grade(s, i):\n    return bool(re.search(norm(i['pattern']), norm(s['output_text']))) * 1.0"
    ),
    "helper nobody calls": "def fill(form):\n    return form.format()\ndef grade(s, i):\n    return 1.0",
    "helper that escapes": (
        "import re\ndef safe(text):\n    return re.escape(text)\n"
        "def grade(s, i):\n    return len(re.findall(safe(s['output_text']), 'x'))"
    ),
    "method of the same name": (
        "class Form:\n    def fill(self, form):\n        return form.format()\n"
        "def grade(s, i):\n    return len(fill(s))\ndef fill(s):\n    return 'x'"
    ),
    "not Python": "def grade(",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_example_is_named_once(name: str) -> None:
    rule, source = BAD[name]
    assert [warning.rule for warning in lint(source)] == [rule]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_example_is_silent(name: str) -> None:
    assert lint(GOOD[name]) == []


def test_warnings_have_lines_in_order_and_say_what_to_do() -> None:
    source = "import yaml\ndef grade(s, i):\n    s['output_text'].format()\n    return yaml.load('')\nx = eval('1')"
    assert [(warning.line, warning.rule) for warning in lint(source)] == [(3, "format"), (4, "yaml"), (5, "code")]
    assert lint(source)[1] == LintWarning(
        line=4, rule="yaml", message="yaml.load can build any Python object; use yaml.safe_load"
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/grader.py")), ids=lambda path: path.parent.name)
def test_the_examples_graders_are_clean(path: Path) -> None:
    assert lint(path.read_text()) == []


def test_an_expression_too_deep_to_follow_is_no_crash() -> None:
    deep = "s" + " + s" * 2_500
    assert [warning.rule for warning in lint(f"def grade(s, i):\n    x = {deep}\n    return eval('1')")] == ["code"]


def test_many_functions_that_hand_on_to_each_other_take_no_time() -> None:
    """A ring of as many as 256 kB hold, in the worst order: a lint is part of validating what strangers send."""
    n = 4_000
    calls = "\n".join(f"def f{k}(a, b, c, d):\n    return f{(k - 1) % n}(b, c, d, a)" for k in range(n))
    started = time.perf_counter()
    assert lint(f"{calls}\ndef grade(s, i):\n    return f0(s, 1, 2, 3)") == []
    assert time.perf_counter() - started < 10
