"""`run_code` and groups: a second child for the model's code with the tests outside it, one child for several calls."""

from __future__ import annotations

import pytest

from agentrft.errors import SandboxFault
from agentrft.sandbox.process import MAX_GROUP, ForkServer, Outcome, Program

TESTS = (
    "[{'function': 'add', 'arguments': [1, 2], 'expected': 3}, {'function': 'add', 'arguments': ['a', 'b'], "
    "'expected': 'ab'}]"
)


@pytest.fixture
async def server():
    server = ForkServer(max_children=2, memory_bytes=500_000_000)
    yield server
    await server.close()


async def test_a_plain_process_has_both_as_well():
    server = ForkServer(isolation="process", max_children=2)
    assert _passed(await _run_code(server, "def add(a, b): return a + b")) == [True, True]
    await server.close()


def _program(source: str) -> Program:
    return Program(source=source, function="f", filename="code.py")


async def _run_code(server: ForkServer, code: str, tests: str = TESTS, more: str = "") -> Outcome:
    return await server.call(_program(f"def f(code): return run_code(code, {tests}{more})"), [code], timeout_s=20)


def _passed(outcome: Outcome) -> list[bool]:
    assert outcome.error is None, outcome.error
    return [result["passed"] for result in outcome.value]


async def test_right_code_passes_and_wrong_code_fails(server):
    assert _passed(await _run_code(server, "def add(a, b): return a + b")) == [True, True]
    outcome = await _run_code(server, "def add(a, b): return a - b")
    assert _passed(outcome) == [False, False]
    assert outcome.value[0]["value"] == -1
    assert outcome.value[1]["error"].startswith("TypeError: unsupported operand")


@pytest.mark.parametrize(
    "code",
    [
        "class E(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef add(a, b): return E(0)",
        "import builtins\nbuiltins.all = builtins.isinstance = lambda *a: True\ndef add(a, b): return 0",
        "import json\njson.loads = lambda *a: {'passed': True}\ndef add(a, b): return 0",
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import sys\nsys.modules['__main__'].TESTS = []\ndef add(a, b): return None",
        "import os\nfor fd in range(1, 9):\n    try: os.write(fd, b'{\"value\": 3}')\n    except OSError: pass",
        "def add(a, b): return True",
        "def add(a, b): return object()",
        "def run(): pass",
        "def add(a, b:",
        "import ctypes; ctypes.string_at(0)",
        "def add(a, b): return 'x' * 100_000",
        "def add(a, b): return run_code('x', [])",
    ],
)
async def test_tricks_pass_no_test(server, code):
    assert True not in _passed(await _run_code(server, code))
    assert _passed(await _run_code(server, "def add(a, b): return a + b")) == [True, True]


async def test_the_code_sees_neither_tests_nor_grader(server):
    code = (
        "import gc, sys\ndef add(a, b):\n    found = [o for o in gc.get_objects() if type(o) is dict]\n"
        "    return [any('expect'.upper() in str(o) for o in found), "
        "'f' in vars(sys.modules['__grader__'])]"
    )
    tests = "[{'function': 'add', 'arguments': [1, 2], 'expected': 'EXPECTED'}]"
    assert (await _run_code(server, code, tests)).value[0]["value"] == [False, False]


@pytest.mark.parametrize(
    ("value", "expected", "passes"),
    [
        ("1", "1.0", True),
        ("True", "1", False),
        ("1", "True", False),
        ("(1, [2])", "[1, [2]]", True),
        ("{'a': {'b': None}}", "{'a': {'b': None}}", True),
        ("{'a': 1, 'b': 2}", "{'a': 1}", False),
        ("[1, 2]", "[1]", False),
        ("None", "None", True),
        ("object()", "None", False),
        ("'1'", "1", False),
    ],
)
async def test_values_are_compared_as_json_with_exact_types(server, value, expected, passes):
    tests = f"[{{'function': 'g', 'arguments': [], 'expected': {expected}}}]"
    assert _passed(await _run_code(server, f"def g(): return {value}", tests)) == [passes]


async def test_endless_code_is_stopped_and_the_grader_goes_on(server):
    outcome = await _run_code(server, "def add(a, b):\n    while True: pass", more=", timeout_s=0.3")
    assert [result["error"] for result in outcome.value] == ["it ran longer than 0.3 s and was stopped"] * 2


async def test_a_grader_that_ends_takes_its_second_child_along(server):
    source = (
        "def f(): return run_code('import time\\ntime.sleep(60)', [{'function': 'g', 'arguments': [], 'expected': 1}])"
    )
    with pytest.raises(SandboxFault, match=r"it ran longer than 0\.5 s"):
        await server.call(_program(source), [], timeout_s=0.5)
    assert (await server.call(_program("def f(): return 1"), [], timeout_s=5)).value == 1


async def test_bad_tests_are_the_graders_mistake(server):
    assert (await _run_code(server, "x", "[]")).error.startswith("ValueError: expected at least one test")
    assert (await _run_code(server, "x", "[{'function': 'f'}]")).error == "KeyError: 'arguments'"


async def test_a_group_shares_one_process_and_keeps_the_order(server):
    source = "import os\nseen = []\ndef f(x):\n    print(x)\n    seen.append(x)\n    return [os.getpid(), seen]"
    found = await server.call_group(_program(source), [[1], [2], [3]], timeout_s=10)
    assert [outcome.value[1] for outcome in found] == [[1], [1, 2], [1, 2, 3]]
    assert len({outcome.value[0] for outcome in found}) == 1
    assert {outcome.output for outcome in found} == {"1\n2\n3\n"}


async def test_a_death_costs_what_had_not_been_answered(server):
    source = "import os\ndef f(x):\n    if x == 2: os._exit(4)\n    return 1 / x"
    first, *rest = await server.call_group(_program(source), [[1], [2], [3]], timeout_s=10)
    assert first.value == 1.0
    assert [str(fault) for fault in rest] == ["its process left with status 4 before answering"] * 2
    assert all(isinstance(fault, SandboxFault) for fault in rest)


async def test_an_exception_costs_one_call_and_a_broken_source_all(server):
    found = await server.call_group(_program("def f(x): return 1 / x"), [[0], [1]], timeout_s=10)
    assert [outcome.error for outcome in found] == ["ZeroDivisionError: division by zero", None]
    found = await server.call_group(_program("1 / 0"), [[0], [1]], timeout_s=10)
    assert [outcome.error for outcome in found] == ["ZeroDivisionError: division by zero"] * 2


async def test_every_call_of_a_group_has_the_whole_time(server):
    source = "import time\ndef f(x):\n    time.sleep(x)\n    return x"
    found = await server.call_group(_program(source), [[0.3], [0.3], [0.3], [9.0]], timeout_s=0.6)
    assert [getattr(outcome, "value", None) for outcome in found] == [0.3, 0.3, 0.3, None]
    assert str(found[3]) == "it ran longer than 0.6 s and was stopped"


async def test_groups_have_a_size(server):
    for calls in ([], [[1]] * (MAX_GROUP + 1)):
        with pytest.raises(ValueError, match=f"expected 1 to {MAX_GROUP}"):
            await server.call_group(_program("def f(x): return x"), calls, timeout_s=1)
