import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.check import CheckReport, check_job
from agentrft.jobs.load import load_job

MakeJob = Callable[..., Path]


def checked(job: Path, **options: Any) -> CheckReport:
    spec, base_dir = load_job(job)
    return check_job(spec, base_dir, **options)


def the_problem(report: CheckReport) -> UserError:
    assert [problem.message for problem in report.problems[1:]] == []
    return report.problems[0]


def test_a_good_job_has_facts_and_no_problems(make_job: MakeJob) -> None:
    report = checked(make_job())
    assert report.problems == []
    facts = dict(report.facts)
    assert facts["tools"] == "look"
    assert facts["items"] == "20 train, 20 validation, 20 test"
    assert facts["training"] == "12 steps × 6 items × 8 episodes = 576 episodes"
    assert "of 256 (line format)" in facts["longest prompt"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_missing_file_is_named(make_job: MakeJob, split: str) -> None:
    job = make_job({f"data.{split}": "nowhere.jsonl"})
    problem = the_problem(checked(job))
    assert problem.param == f"data.{split}"
    assert str(job.parent / "nowhere.jsonl") in problem.message


def test_a_malformed_line_is_named_by_its_number(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    lines[16] = '{"messages": ['
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    problem = the_problem(checked(job))
    assert "train.jsonl, line 17" in problem.message
    assert problem.param == "data.train"


def test_a_template_grader_that_names_a_missing_column_is_caught(make_job: MakeJob) -> None:
    grader = {
        "type": "string_check",
        "name": "exact",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.meening}}",
    }
    report = checked(make_job({"method.reinforcement.grader": grader}))
    assert "item.meening" in report.problems[0].message
    assert "line 1" in report.problems[0].message
    assert "meaning" in report.problems[0].message  # the keys that there are


def test_a_python_grader_that_reads_a_missing_column_is_caught(make_job: MakeJob) -> None:
    problem = the_problem(checked(make_job(grader__py="def grade(sample, item):\n    return item['meening']\n")))
    assert "KeyError: 'meening'" in problem.message
    assert "meaning" in problem.message
    assert problem.param == "method.reinforcement.grader"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def grade(sample, item)\n    return 1\n", ["grader.py", "line 1"]),
        ("def score(sample, item):\n    return 1\n", ["no `grade`"]),
    ],
)
def test_a_grader_that_is_no_grader_is_caught(make_job: MakeJob, source: str, words: list[str]) -> None:
    problem = the_problem(checked(make_job(grader__py=source)))
    assert all(word in problem.message for word in words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def look(word):\n    return word\n", ["look", "word"]),  # no type: no schema
        ("def see(word: str) -> str:\n    return word\n", ["no look", "see"]),
        ("import nowhere_at_all\n", ["ModuleNotFoundError"]),
    ],
)
def test_a_tool_without_a_schema_or_a_function_is_caught(make_job: MakeJob, source: str, words: list[str]) -> None:
    problem = the_problem(checked(make_job(tools__py=source)))
    assert all(word in problem.message for word in words)
    assert problem.param is not None
    assert problem.param.startswith("agent.tools.0")


@pytest.mark.parametrize("model", ["no-such-model", "./no/such/folder/here", "ftjob-000000"])
def test_a_model_that_cannot_be_found_is_named(make_job: MakeJob, model: str) -> None:
    problem = the_problem(checked(make_job({"model": model})))
    assert model in problem.message
    assert problem.param == "model"


def test_a_name_of_the_hub_is_not_looked_up(make_job: MakeJob) -> None:
    report = checked(make_job({"model": "owner/some-model"}))
    assert report.problems == []
    assert dict(report.facts)["model"] == "owner/some-model (on the hub: not checked)"


def test_the_built_in_model_needs_no_hub(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "new"))
    report = checked(make_job({"model": "SmolLM2-135M-Instruct"}))
    assert report.problems == []
    assert dict(report.facts)["model"] == "SmolLM2-135M-Instruct (built in, unpacked when first used)"


def test_start_from_replaces_the_model(make_job: MakeJob, model_folder: Path) -> None:
    assert checked(make_job({"model": "no-such-model"}), start_from=str(model_folder)).problems == []


def test_a_limit_beyond_the_models_context_is_caught(make_job: MakeJob) -> None:
    problem = the_problem(checked(make_job({"agent.limits.max_episode_tokens": 4096})))
    assert "4096" in problem.message
    assert "512" in problem.message
    assert problem.code == "context_overflow"


def test_a_prompt_that_leaves_no_room_for_a_reply_is_caught(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    long = {"messages": [{"role": "user", "content": "word " * 200}], "word": "w", "meaning": "m"}
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(json.dumps(long) + "\n")
    problem = the_problem(checked(job))
    assert "test.jsonl, line 21" in problem.message
    assert problem.code == "context_overflow"


def test_a_demonstration_that_is_too_long_is_caught(make_job: MakeJob) -> None:
    problem = the_problem(checked(make_job({"agent.limits.max_episode_tokens": 155})))
    assert problem.param == "data.demonstrations"


def test_supervised_needs_demonstrations(make_job: MakeJob) -> None:
    report = checked(make_job({"method.type": "supervised", "data.demonstrations": None}))
    assert "data.demonstrations" in the_problem(report).message


def test_a_demonstration_that_calls_an_unknown_tool_is_caught(make_job: MakeJob) -> None:
    job = make_job()
    path = job.parent / "demonstrations.jsonl"
    path.write_text(path.read_text().replace('"look"', '"loook"'))
    problem = checked(job).problems[0]
    assert "line 1" in problem.message
    assert "'loook'" in problem.message
    assert "look" in problem.message


def test_reinforcement_needs_items(make_job: MakeJob) -> None:
    assert "data.train" in the_problem(checked(make_job({"data.train": None}))).message


def test_items_in_training_and_test_are_caught(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    (tmp_path / "test.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    assert the_problem(checked(job)).code == "overlapping_splits"


def test_a_reply_limit_above_the_episode_limit_is_caught(make_job: MakeJob) -> None:
    report = checked(make_job({"agent.limits.max_reply_tokens": 300}))
    assert report.problems[0].param == "agent.limits.max_reply_tokens"


def test_all_problems_come_at_once(make_job: MakeJob) -> None:
    job = make_job({"data.train": "nowhere.jsonl", "model": "no-such-model"}, grader__py="grade = 1 +")
    report = checked(job)
    assert len(report.problems) == 3
    with pytest.raises(UserError) as caught:
        report.raise_problems()
    assert len(caught.value.message.splitlines()) >= 3


def test_warnings_are_no_problems(make_job: MakeJob) -> None:
    report = checked(make_job({"data.validation": None, "method.reinforcement.hyperparameters": {"batch_size": 30}}))
    assert report.problems == []
    assert any("last checkpoint" in warning for warning in report.warnings)
    assert any("fewer than the 30" in warning for warning in report.warnings)


# ---- what only running the job's own code tells


def test_a_job_without_validation_can_run(make_job: MakeJob) -> None:
    report = checked(make_job({"data.validation": None}))
    assert report.problems == []
    assert "no `data.validation`: the last checkpoint is the result, not the best one" in report.warnings


@pytest.mark.parametrize("returned", ["sample['output_text'] == 'x'", "None", "100", "float('nan')", "10**400"])
def test_a_grader_that_gives_no_number_is_warned_about(make_job: MakeJob, returned: str) -> None:
    report = checked(make_job(grader__py=f"def grade(sample, item):\n    return {returned}\n"))
    assert report.problems == []
    assert any("empty answer to train, line 1 gets no grade" in warning for warning in report.warnings)
    assert any("expected a finite int or float from 0 to 1" in warning for warning in report.warnings)


def test_a_grader_that_hangs_is_warned_about(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrft.jobs.probe._PROBE_S", 0.5)
    report = checked(make_job(grader__py="import time\ndef grade(sample, item):\n    time.sleep(60)\n    return 0.0\n"))
    assert any("gave no answer within 0.5 s" in warning for warning in report.warnings)


def judged(url: str) -> dict[str, Any]:
    """Changes to the job: a judge for a grader."""
    messages = [{"role": "user", "content": "{{sample.output_text}} for {{item.meaning}}?"}]
    grader = {"type": "score_model", "name": "judged", "model": "judge-1", "input": messages, "base_url": f"{url}/v1"}
    return {"method.reinforcement.grader": grader}


def remote(url: str) -> dict[str, Any]:
    return {"method.reinforcement.grader": {"type": "endpoint", "url": url, "headers": {"Authorization": "hush"}}}


@pytest.mark.parametrize("changes", [judged, remote])
def test_a_judge_or_endpoint_is_asked_once_for_each_split(
    make_job: MakeJob, serve, answer, completion, changes
) -> None:
    def respond(asked):
        if asked.path == "/":
            return answer(body={"score": 0})
        return completion('{"steps": [], "result": 0}')

    server = serve(respond)
    report = checked(make_job(changes(server.url)))
    assert (report.problems, report.warnings) == ([], [])
    assert len(server.asked) == 3


@pytest.mark.parametrize("changes", [judged, remote])
def test_a_judge_or_endpoint_that_is_down_is_caught(make_job: MakeJob, serve, answer, changes) -> None:
    server = serve(lambda asked: answer(status=503, body=b"gone for lunch", headers={"Retry-After": "0"}))
    problem = the_problem(checked(make_job(changes(server.url))))
    assert "could not grade an empty answer to train, line 1: " in problem.message
    assert "answered 503: gone for lunch (4 tries)" in problem.message
    assert (problem.param, problem.code) == ("method.reinforcement.grader", "grader_unreachable")


def test_a_judge_that_does_not_know_the_model_is_caught(make_job: MakeJob, serve, answer) -> None:
    server = serve(lambda asked: answer(status=404, body={"error": {"message": "no model judge-1"}}))
    problem = the_problem(checked(make_job(judged(server.url))))
    assert "answered 404: no model judge-1; check the model's name and the base URL" in problem.message


@pytest.mark.parametrize("changes", [judged, remote])
def test_a_judge_or_endpoint_that_gives_no_number_is_warned_about(
    make_job: MakeJob, serve, answer, completion, changes
) -> None:
    server = serve(lambda asked: answer(body={"score": "1"}) if asked.path == "/" else completion("no idea"))
    report = checked(make_job(changes(server.url)))
    assert report.problems == []
    assert sum("an empty answer to" in warning for warning in report.warnings) == 3


def test_a_slow_judge_is_warned_about(make_job: MakeJob, serve, answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrft.jobs.probe._PROBE_S", 0.2)
    server = serve(lambda asked: answer(delay_s=30))
    assert any("gave no answer within 0.2 s" in warning for warning in checked(make_job(judged(server.url))).warnings)


def test_a_judge_without_its_key_is_caught_before_it_is_asked(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    grader = {key: value for key, value in judged("")["method.reinforcement.grader"].items() if key != "base_url"}
    problem = the_problem(checked(make_job({"method.reinforcement.grader": grader})))
    assert problem.param == "method.reinforcement.grader.api_key_env"
    assert "OPENAI_API_KEY is not set" in problem.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def __init__(self, item):\n        self.files = item['files']", ["KeyError: 'files'", "keys: word, meaning"]),
        ("def __init__(self, item):\n        pass\n    def reset(self, item):\n        pass", ["TypeError"]),
    ],
)
def test_tools_that_cannot_start_are_caught(make_job: MakeJob, body: str, words: list[str]) -> None:
    source = f"class look:\n    {body}\n    def look(self, word: str) -> str:\n        return word\n"
    problem = the_problem(checked(make_job(tools__py=source)))
    assert all(word in problem.message for word in ["train.jsonl, line 1", *words])
    assert (problem.param, problem.code) == ("data.train", "invalid_tool")


def test_reinforcement_without_a_grader_is_caught(make_job: MakeJob) -> None:
    spec, base_dir = load_job(make_job({"method": {"type": "supervised"}}))
    changed = spec.model_copy(update={"method": spec.method.model_copy(update={"type": "reinforcement"})})
    assert the_problem(check_job(changed, base_dir)).code == "grader_missing"


# ---- schemas in rows, arguments in demonstrations


def look_as(parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "look", "description": "", "parameters": parameters}}]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"type": "object", "properties": {"word": {"type": "strnig"}}}, "not a valid JSON Schema"),
        ({"type": "object", "properties": {"word": {"$ref": "#/$defs/W"}}}, "not a valid JSON Schema"),
        ({"type": "object", "properties": {"query": {"type": "string"}}}, "argument 'query'"),
    ],
)
def test_a_row_with_a_schema_that_cannot_work_is_named(
    make_job: MakeJob, tmp_path: Path, parameters: Any, words: str
) -> None:
    job = make_job()
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rows[4]["tools"] = look_as(parameters)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = checked(job).problems[0]
    assert words in problem.message
    assert "train.jsonl, line 5" in problem.message


@pytest.mark.parametrize("arguments", ["{}", '{"word": [1]}', '{"wrod": "a"}'])
@pytest.mark.parametrize("chat_format", ["line", "hermes"])
def test_a_demonstration_whose_call_would_fail_is_named(
    make_job: MakeJob, tmp_path: Path, arguments: str, chat_format: str
) -> None:
    job = make_job({"agent.format": chat_format})
    lines = (tmp_path / "demonstrations.jsonl").read_text().splitlines()
    third = json.loads(lines[2])
    third["messages"][1]["tool_calls"][0]["function"]["arguments"] = arguments
    lines[2] = json.dumps(third)
    (tmp_path / "demonstrations.jsonl").write_text("\n".join(lines))
    problem = checked(job).problems[0]
    assert "demonstrations.jsonl, line 3" in problem.message
    assert problem.code == "invalid_demonstration"


def test_a_reply_that_the_format_cannot_write_is_named_by_its_row(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job({"data.demonstrations": None})
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"word": "a"}'}}
    rows[6]["messages"] = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "m"},
        {"role": "user", "content": "And now?"},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = the_problem(checked(job))
    assert "train.jsonl, line 7" in problem.message
    assert problem.param == "data.train"


def test_an_early_stop_needs_items_and_a_grader(make_job: MakeJob) -> None:
    stop = {"method.type": "supervised", "method.supervised": {"early_stop": {"pass_at_k": 0.3}}}
    assert checked(make_job(stop)).problems == []
    problem = the_problem(checked(make_job({**stop, "data.validation": None})))
    assert (problem.code, problem.param) == ("split_missing", "data.validation")
    problem = the_problem(checked(make_job({**stop, "method.reinforcement": None})))
    assert (problem.code, problem.param) == ("grader_missing", "method.reinforcement.grader")
