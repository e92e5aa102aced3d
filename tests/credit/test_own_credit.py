from pathlib import Path

import pytest
from pydantic import TypeAdapter

from agentrft.credit import CreditSpec, load_credit, load_function, own_turn_rewards
from agentrft.errors import UserError
from agentrft.types import Episode, Grade, Group, Item, Message, StopReason, ToolCall, ToolResult, Turn

OWN = """
from dataclasses import dataclass
import numpy as np

@dataclass
class Rule:
    best: float

def best_only(group):
    best = Rule(max(r for r in group.rewards_G if r is not None))
    return [1.0 if r == best.best else -1.0 for r in group.rewards_G]

def later_is_more(group):
    return [[float(k) for k, _ in enumerate(steps)] for steps in group.steps_G]

def arrays(group):
    return np.array([np.float32(0.5)] * len(group.rewards_G))

def tree(group):
    return [np.zeros(len(steps)) for steps in group.steps_G]

def crashes(group):
    return group.rewards[0]

async def waits(group):
    return []

def nothing(group):
    return None

def too_few(group):
    return [0.0]

def wrong_turns(group):
    return [[0.0]] * len(group.rewards_G)

def not_a_number(group):
    return [float("nan")] * len(group.rewards_G)

def text(group):
    return ["1.0"] * len(group.rewards_G)

def leaves(group):
    raise SystemExit("bye")

CONSTANT = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mycredit.py").write_text(OWN)
    return tmp_path


def credit(folder: Path, name: str):
    spec = TypeAdapter(CreditSpec).validate_python(f"mycredit.py:{name}")
    return load_credit(spec, folder)


def test_one_number_for_each_member_goes_to_all_its_turns(group, folder):
    view = group([1.0, 0.0, None], ["ab", "a", "a"])
    credited = credit(folder, "best_only")([view])
    assert credited.credit_I_G_K == [[[1.0, 1.0], [-1.0], [0.0]]]
    assert credited.basis_I_G == [[0.5, -0.5, 0.0]]


def test_a_number_for_each_turn(group, folder):
    assert credit(folder, "later_is_more")([group([1.0, 0.0], ["abc", "a"])]).credit_I_G_K == [[[0.0, 1.0, 2.0], [0.0]]]


def test_arrays_are_lists(group, folder):
    assert credit(folder, "arrays")([group([1.0, 0.0], ["ab", "a"])]).credit_I_G_K == [[[0.5, 0.5], [0.5]]]
    assert credit(folder, "tree")([group([1.0, 0.0], ["ab", "a"])]).credit_I_G_K == [[[0.0, 0.0], [0.0]]]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("crashes", r"raised AttributeError at line \d+"),
        ("leaves", "raised SystemExit"),
        ("nothing", r"returned NoneType, expected a list with one entry for each member \(2\)"),
        ("too_few", r"returned 1 entries, expected one entry for each member \(2\)"),
        ("wrong_turns", r"returned 1 entries, expected one number for each turn \(2\)"),
        ("not_a_number", "gave nan, expected a finite number"),
        ("text", "gave '1.0', expected a finite number"),
    ],
)
def test_what_it_gets_wrong_is_told(group, folder, name, found):
    with pytest.raises(UserError, match=found) as caught:
        credit(folder, name)([group([1.0, 0.0], ["ab", "ab"])])
    assert caught.value.message.startswith(f"credit mycredit.py:{name}: ")
    assert (caught.value.param, caught.value.code) == ("training.credit", "invalid_credit")


@pytest.mark.parametrize(
    ("target", "code", "found"),
    [
        ("other.py:f", "credit_not_found", "no file .*other.py; the path is relative to the job file"),
        ("mycredit.py:missing", "credit_not_found", "has no missing; it has best_only, later_is_more"),
        ("mycredit.py:CONSTANT", "invalid_credit", "CONSTANT is int, expected a plain function"),
        ("mycredit.py:waits", "invalid_credit", "is async or a class"),
        ("mycredit.py:Rule", "invalid_credit", "is async or a class"),
        ("broken.py:f", "invalid_credit", "raised ZeroDivisionError at line 1: .* on import"),
    ],
)
def test_what_cannot_be_loaded_is_told(folder, target, code, found):
    (folder / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match=found) as caught:
        load_function(target, folder)
    assert (caught.value.param, caught.value.code) == ("training.credit", code)


def test_two_jobs_files_of_one_name_are_two_modules(tmp_path):
    functions = []
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mycredit.py").write_text(f"def f(group):\n    return {value}\n")
        functions.append(load_function("mycredit.py:f", tmp_path / name))
    assert [function(None) for function in functions] == [1, 2]


def episode(*turns: Turn) -> Episode:
    return Episode(
        id="e", trace_id="t", item_id="i", step=1, member=0, attempt=0, messages=(), turns=turns,
        stop_reason=StopReason.ANSWERED,
    )  # fmt: skip


def test_turn_rewards_from_a_function_of_ones_own():
    call = ToolCall(id="0", name="cat", arguments='{"path": "/a"}')
    first = Turn(
        reply=Message(role="assistant", tool_calls=(call,)), results=(ToolResult(call_id="0", output="port = 1"),)
    )
    last = Turn(reply=Message(role="assistant", content="1"))
    group = Group(
        item=Item(id="i", messages=(), fields={"key": "port"}),
        episodes=(episode(first, last),),
        grades=(Grade(value=1),),
    )
    seen = []

    def reward(item, turn):
        seen.append(turn)
        return 1 if any(item.pop("key") in text for text in turn["results"]) else 0

    # The function may do with its item what it likes: the next turn has its own copy.
    assert own_turn_rewards(group, reward, "mycredit.py:reward") == [[1.0, 0.0]]
    assert seen[0] == {
        "index": 0,
        "of": 2,
        "text": "",
        "calls": ['cat {"path":"/a"}'],
        "results": ["port = 1"],
        "errors": [False],
        "malformed": None,
    }
    assert (seen[1]["index"], seen[1]["text"], seen[1]["results"]) == (1, "1", [])
    with pytest.raises(UserError, match="gave True, expected a finite number"):
        own_turn_rewards(group, lambda item, turn: True, "mycredit.py:reward")
