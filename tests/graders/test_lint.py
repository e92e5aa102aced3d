"""The lint of Python graders: each rule fires on a bad example and stays silent on a good one."""

from __future__ import annotations

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
