import typing
from pathlib import Path

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from agentrft.credit import METHODS, CreditSpec, PenaltiesSpec, load_credit
from agentrft.credit.spec import OwnCredit, StepGroups

CREDIT_SPEC = TypeAdapter(CreditSpec)


def specs() -> list[type[BaseModel]]:
    return list(typing.get_args(typing.get_args(CreditSpec)[0]))


def test_every_method_has_a_spec_and_every_spec_a_method():
    types = {spec.model_fields["type"].default for spec in specs()}
    assert types == {*METHODS, "python"}


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.__name__)
def test_every_spec_loads_and_takes_its_settings(spec, group, tmp_path):
    (tmp_path / "own.py").write_text("def f(group):\n    return [0.0, 0.0]\n")
    required = {"reference": "answer", "rewards": "own.py:f", "target": "own.py:f"}
    given = {name: value for name, value in required.items() if name in spec.model_fields}
    credit = load_credit(CREDIT_SPEC.validate_python({"type": spec.model_fields["type"].default, **given}), tmp_path)
    view = group([1.0, 0.0], ["ab", "ab"], references_G=[[-1.0, -1.0]] * 2, nodes_G=[["p", "q"], ["r", "s"]])
    assert [len(turns) for turns in credit([view]).credit_I_G_K[0]] == [2, 2]


def test_a_name_alone_and_a_path_alone_will_do():
    assert CREDIT_SPEC.validate_python("step_groups") == StepGroups(omega=1.0, gamma=0.95)
    assert CREDIT_SPEC.validate_python("lib/my.py:f") == OwnCredit(target="lib/my.py:f")
    assert load_credit(CREDIT_SPEC.validate_python("group_mean"), Path()) is not None


@pytest.mark.parametrize(
    "given",
    [
        "gigpo",
        "my.py:",
        "my:f",
        {"type": "group_mean", "gamma": 0.9},  # a setting that it does not use
        {"type": "step_groups", "gamma": 0.0},
        {"type": "step_groups", "gamma": 1.01},
        {"type": "step_groups", "omega": float("nan")},
        {"type": "grouped_gae", "lam": 1.0},
        {"type": "turn_returns"},
        {"type": "turn_returns", "rewards": "group_mean"},
        {"type": "information_gain"},
        {"type": "information_gain", "reference": "answer", "weight": 1.5},
        3,
        None,
    ],
)
def test_nonsense_credit_is_refused(given):
    with pytest.raises(ValidationError):
        CREDIT_SPEC.validate_python(given)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"call": {"weight": 0.1, "budget": 5}}, "Extra inputs"),
        ({"calls": {"weight": 0.1}}, "Field required"),
        ({"calls": {"weight": 0.0, "budget": 5}}, "greater than 0"),
        ({"calls": {"weight": 1.0, "budget": 5}}, "less than 1"),
        ({"calls": {"weight": 0.1, "budget": 3, "free": 3}}, "budget must be the larger"),
        ({"calls": {"weight": 0.1, "budget": float("inf")}}, "finite"),
        ({"calls": {"weight": 0.6, "budget": 5}, "tokens": {"weight": 0.4, "budget": 9}}, "take up to 1 of a success"),
        ({"calls": {"weight": 0.5, "budget": 5}, "tools": {"each": {"web": 0.1}, "most": 0.5}}, "take up to 1"),
        ({"tools": {"each": {}}}, "at least 1"),
        ({"tools": {"each": {"web": 0.4}}}, "could never be charged"),
        ({"success_range": [1, 1]}, "the first must be below"),
        ({"gates": [{"part": "safe", "at_least": 0.5}, {"part": "safe", "at_least": 0.9}]}, "two gates"),
        ({"gates": [{"part": "safe", "at_least": 0.5, "factor": 1.0}]}, "less than 1"),
        ({"process": 0.9}, "less than or equal to 0.5"),
        ({"truncated": "zero"}, "'clamp', 'grade' or 'leave_out'"),
    ],
)
def test_nonsense_penalties_are_refused(given, found):
    with pytest.raises(ValidationError, match=found):
        PenaltiesSpec.model_validate(given)
