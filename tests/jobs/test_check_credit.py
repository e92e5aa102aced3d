"""What is known of a job's credit and penalties before a model is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.jobs.check import check_job
from agentrft.jobs.load import load_job, parse_job

MakeJob = Callable[..., Path]


def problems(job: Path) -> list[UserError]:
    spec, base_dir = load_job(job)
    return check_job(spec, base_dir).problems


def with_training(training: dict, **reinforcement) -> dict:
    return {"model": "m", "data": {"train": "a.jsonl"}, "training": training, **reinforcement}


@pytest.mark.parametrize(
    ("credit", "code", "said"),
    [
        ("mine.py:rule", "credit_not_found", "no file"),
        ("grader.py:rule", "credit_not_found", "has no rule"),
        ({"type": "turn_returns", "rewards": "mine.py:useful"}, "credit_not_found", "no file"),
        ({"type": "turn_returns", "rewards": "grader.py:grade"}, "invalid_credit", "40 episodes, 2 of each item"),
        ({"type": "tree", "at": [2, 99]}, "invalid_credit", "branches before turn 99, which no episode reaches"),
        (
            {"type": "information_gain", "reference": "anser"},
            "invalid_credit",
            "training row 1 has no such field there",
        ),
    ],
)
def test_credit_that_cannot_be_used_is_named(make_job: MakeJob, credit, code: str, said: str) -> None:
    [problem] = problems(make_job({"training.credit": credit}))
    assert problem.code == code
    assert str(problem.param).startswith("training.credit")
    assert said in problem.message


@pytest.mark.parametrize(
    "changes",
    [
        {"training.credit": {"type": "turn_returns", "rewards": "grader.py:grade", "force": True}},
        {"training.credit": "grader.py:grade"},
        {"training.credit": {"type": "tree", "at": [2, 3]}},
        {"training.credit": "step_groups", "training.penalties": {"tools": {"each": {"look": 0.1}}}},
    ],
)
def test_credit_that_can_be_used_is_no_problem(make_job: MakeJob, changes: dict) -> None:
    assert problems(make_job(changes)) == []


def test_enough_validation_episodes_can_judge_turn_rewards(make_job: MakeJob) -> None:
    credit = {"type": "turn_returns", "rewards": "grader.py:grade"}
    hyper = "method.reinforcement.hyperparameters"
    assert problems(make_job({"training.credit": credit, hyper: {"eval_samples": 4}})) == []


def test_a_price_on_a_tool_that_is_not_bound_could_never_be_charged(make_job: MakeJob) -> None:
    [problem] = problems(make_job({"training.penalties": {"tools": {"each": {"lok": 0.1}}}}))
    assert (problem.code, problem.param) == ("unknown_tool", "training.penalties.tools")
    assert "expected one of look" in problem.message


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"credit": {"type": "tree", "trees": 8}}, "has 8 trees in groups of 8, which leaves none to branch"),
        ({"credit": "step_grups"}, "expected one of `group_mean`, `leave_one_out`"),
        ({"credit": {"type": "group_mean", "omega": 1}}, "unknown key `omega`"),
        ({"loss": {"type": "reinforce_pp"}, "credit": "step_groups"}, "with credit `group_mean`, got `step_groups`"),
        ({"exact": True, "penalties": {"tool_seconds": {"weight": 0.1, "budget": 5}}}, "which no run repeats"),
    ],
)
def test_what_cannot_take_effect_is_refused(training: dict, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_job(with_training(training))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("grader", "expected"),
    [
        ({"type": "python", "name": "g", "source": "def grade(s, i):\n    return 1"}, "of type `multi`"),
        (
            {
                "type": "multi",
                "name": "g",
                "graders": {
                    "exact": {
                        "type": "string_check",
                        "name": "e",
                        "operation": "eq",
                        "input": "{{sample.output_text}}",
                        "reference": "a",
                    }
                },
                "calculate_output": "exact",
            },
            "expected one of exact",
        ),
    ],
)
def test_a_gate_hangs_on_a_part_that_there_is(grader: dict, expected: str) -> None:
    training = {"penalties": {"gates": [{"part": "exakt", "at_least": 1}]}}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    with pytest.raises(UserError) as caught:
        parse_job(with_training(training, method=method))
    assert "names the part `exakt`" in caught.value.message
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("loss", "credit"), [("rloo", "leave_one_out"), ("maxrl", "group_mean"), ("dapo", "group_mean")]
)
def test_a_loss_brings_the_credit_that_it_is_defined_with(loss: str, credit: str) -> None:
    spec = parse_job(with_training({"loss": {"type": loss}}))
    assert spec.training.credit.type == credit
    # The stored document names it, and can be read again.
    assert parse_job(spec.model_dump(mode="json")) == spec
