"""`graders/run` and `validate` through the real SDK: every type, every kind of failure, nothing beyond the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from agentrft.server.config import Network, ServerConfig

EXACT: Any = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
PYTHON: Any = {
    "type": "python",
    "name": "length",
    "source": "def grade(sample, item):\n    return len(sample['output_text']) / 10",
}
JUDGE: Any = {
    "type": "score_model",
    "name": "judge",
    "model": "judge-1",
    "input": [{"role": "user", "content": "Rate {{sample.output_text}}"}],
}
ERRORS = {
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_server_error_type",
    "python_grader_runtime_error",
    "python_grader_runtime_error_details",
    "model_grader_server_error",
    "model_grader_server_error_details",
    "model_grader_refusal_error",
    "model_grader_parse_error",
}


@pytest.fixture
def near(live: Callable[..., Any]) -> Callable[[str], Any]:
    """near(url): a server whose operator lets graders ask that address."""

    def start(url: str) -> Any:
        return live(ServerConfig(concurrency=0, network=Network(allow=(url.removeprefix("http://"),))))

    return start


def run(server: Any, grader: Any, sample: str = "blue", **more: Any) -> Any:
    return server.openai().fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, **more)


def flags(result: Any) -> set[str]:
    errors = result.to_dict()["metadata"]["errors"]
    assert set(errors) == ERRORS
    return {name for name, value in errors.items() if value is True}


def test_the_answer_is_what_the_sdk_expects(server: Any) -> None:
    result = run(server, EXACT, item={"answer": "blue"})
    assert result.reward == 1.0
    assert (result.metadata.name, result.metadata.type) == ("exact", "string_check")
    assert result.metadata.scores == {"exact": 1.0}
    assert result.metadata.token_usage is None
    assert result.sub_rewards == {}
    assert flags(result) == set()
    assert set(result.to_dict()) == {"reward", "sub_rewards", "model_grader_token_usage_per_model", "metadata"}
    assert set(result.metadata.model_extra) == {"reason"}  # ours, documented
    assert result.metadata.execution_time >= 0


@pytest.mark.parametrize(
    ("grader", "sample", "item", "reward"),
    [
        (EXACT, "red", {"answer": "blue"}, 0.0),
        (PYTHON, "blue", {}, 0.4),
        ({**EXACT, "input": "{{sample.output_json.a[0]}}"}, '{"a": ["blue"]}', {"answer": "blue"}, 1.0),
        (
            {
                "type": "text_similarity",
                "name": "near",
                "input": "{{sample.output_text}}",
                "reference": "{{item.answer}}",
                "evaluation_metric": "rouge_1",
            },
            "the blue one",
            {"answer": "the blue one"},
            1.0,
        ),
        (
            {
                "type": "multi",
                "name": "both",
                "graders": {"exact": EXACT, "length": PYTHON},
                "calculate_output": "0.5 * exact + length / 2",
            },
            "blue",
            {"answer": "blue"},
            0.7,  # 0.5 · 1 + 0.4 / 2
        ),
    ],
)
def test_each_type_gives_its_reward(server: Any, grader: Any, sample: str, item: Any, reward: float) -> None:
    result = run(server, grader, sample, item=item)
    assert result.reward == pytest.approx(reward)
    if grader["type"] == "multi":
        assert result.sub_rewards == pytest.approx({"exact": 1.0, "length": 0.4})


@pytest.mark.parametrize(
    ("grader", "flag", "details"),
    [
        (EXACT, "invalid_variable_error", None),
        (
            {**PYTHON, "source": "def grade(sample, item):\n    return 1 / 0"},
            "python_grader_runtime_error",
            "ZeroDivisionError",
        ),
        ({**PYTHON, "source": "def grade(sample, item):\n    return float('nan')"}, None, None),
    ],
)
def test_what_gives_no_number_is_flagged(server: Any, grader: Any, flag: str | None, details: str | None) -> None:
    result = run(server, grader)
    assert result.reward == 0.0
    assert flags(result)
    assert flag is None or flags(result) == {flag}
    assert result.metadata.reason
    if details:
        assert details in result.metadata.errors.python_grader_runtime_error_details


def test_an_endpoint_gets_the_trace_id_and_the_row(near: Any, serve: Any, answer: Any) -> None:
    service = serve(lambda asked: answer(body={"score": 7}))
    grader = {"type": "endpoint", "url": f"{service.url}/g", "headers": {"x-key": "sk-canary-00112233"}}
    row = {"messages": [{"role": "user", "content": "?"}], "answer": "blue", "tools": None}
    result = run(near(service.url), grader, item=row, extra_body={"trace_id": "trace_mine"})
    assert result.reward == 7.0
    (asked,) = service.asked
    sent = asked.json()
    assert sent["trace_id"] == "trace_mine"
    assert sent["sample"]["output_text"] == "blue"
    assert (sent["item"]["answer"], sent["item"]["messages"][0]["content"]) == ("blue", "?")
    assert asked.headers["x-key"] == "sk-canary-00112233"


def test_an_endpoint_that_fails_is_told_without_its_secrets(near: Any, serve: Any, answer: Any) -> None:
    secret = "sk-canary-00112233"
    service = serve(lambda asked: answer(status=400, body=f"no, {secret} is wrong \ud83d".encode("utf-8", "replace")))
    result = run(near(service.url), {"type": "endpoint", "url": service.url, "headers": {"x-key": secret}})
    assert flags(result) == {"unresponsive_reward_error"}
    assert "answered 400: no, ********** is wrong" in result.metadata.reason
    assert secret not in result.to_json()


def test_addresses_that_are_not_public_are_refused(server: Any, serve: Any, answer: Any) -> None:
    service = serve(lambda asked: answer(body={"score": 1}))
    for url in (service.url, "http://169.254.169.254/latest", "http://localhost:1/x", "https://10.0.0.1/"):
        with pytest.raises(openai.BadRequestError) as error:
            run(server, {"type": "endpoint", "url": url})
        assert error.value.param == "grader.url"
    assert service.asked == []


def test_a_judge_counts_its_tokens(near: Any, serve: Any, completion: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}
    filled = json.dumps({"steps": [], "result": 0.75})
    judge = serve(lambda asked: completion(filled, usage=usage))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{judge.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-operator")
    result = run(near(judge.url), JUDGE)
    assert result.reward == 0.75
    assert (result.metadata.sampled_model_name, result.metadata.token_usage) == ("judge-1", 35)
    tokens = result.model_dump(by_alias=True)["model_grader_token_usage_per_model"]["judge-1"]
    assert tokens == {"prompt_tokens": 30, "completion_tokens": 5, "cached_tokens": 0, "total_tokens": 35}


@pytest.mark.parametrize(
    "grader",
    [
        {**JUDGE, "base_url": "https://evil.example/v1", "api_key_env": "AGENTRFT_MASTER_KEY"},
        {**JUDGE, "api_key_env": "AGENTRFT_MASTER_KEY"},
        {"type": "python", "name": "file", "source_file": "/etc/passwd"},
        {**PYTHON, "isolation": "process"},
        {"type": "multi", "name": "m", "graders": {"a": {**PYTHON, "isolation": "process"}}, "calculate_output": "a"},
    ],
)
def test_nothing_reaches_into_the_servers_machine(server: Any, grader: Any) -> None:
    for call in (
        lambda: run(server, grader),
        lambda: server.openai().fine_tuning.alpha.graders.validate(grader=grader),
    ):
        with pytest.raises(openai.BadRequestError) as error:
            call()
        assert error.value.code == "forbidden_option"
        assert str(error.value.param).startswith("grader.")


def test_validate_gives_the_grader_as_it_is_understood(server: Any) -> None:
    graders = server.openai().fine_tuning.alpha.graders
    shown = graders.validate(grader=EXACT).grader
    assert shown.to_dict() == {**EXACT, "pass_threshold": 0.5}
    endpoint = {"type": "endpoint", "url": "https://example.com/g", "headers": {"x": "sk-canary-1234"}}
    masked: Any = graders.validate(grader=endpoint).grader
    assert masked.headers == {"x": "**********"}
    with pytest.raises(openai.BadRequestError) as error:
        graders.validate(grader={**EXACT, "operation": "neq"})
    assert error.value.param == "grader.operation"
    with pytest.raises(openai.BadRequestError) as error:
        graders.validate(grader={**PYTHON, "source": "def grade(:"})
    assert error.value.code == "invalid_grader"
    broken = {"type": "multi", "name": "m", "graders": {"a": EXACT}, "calculate_output": "a +"}
    with pytest.raises(openai.BadRequestError) as error:
        graders.validate(grader=broken)
    assert error.value.param == "grader"
    assert "the formula ends early" in str(error.value)


def test_bad_requests_name_the_field(server: Any) -> None:
    http = server.http()
    path = "/v1/fine_tuning/alpha/graders/run"
    for body, param in [
        ({"model_sample": "x"}, "grader"),
        ({"grader": EXACT}, "model_sample"),
        ({"grader": EXACT, "model_sample": 3}, "model_sample"),
        ({"grader": [], "model_sample": "x"}, "grader"),
        ({"grader": {}, "model_sample": "x"}, "grader"),
        ({"grader": EXACT, "model_sample": "x", "item": {"messages": [{"role": "robot"}]}}, "item"),
    ]:
        answered = http.post(path, json=body)
        assert (answered.status_code, answered.json()["error"]["param"]) == (400, param), body
