"""Every mistake in a create body is named by its place in the body, with what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from create_bodies import GRADER, JobOf, body, refused, rft

WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    # what, body, param, words
    ("no model", body(model="absent"), "model", "`model` is missing"),
    ("no training file", body(training_file=None), "training_file", "`training_file` is missing"),
    ("a file as a number", body(training_file=3), "training_file", "is a int"),
    ("an unknown file", body(training_file="file-unknown"), "training_file", "no file file-unknown"),
    ("an unknown validation file", body(validation_file="file-unknown"), "validation_file", "no file"),
    ("an unknown key", body(n_epochs=3), "n_epochs", "unknown key `n_epochs`"),
    ("a misspelt key", body(valid_file="file-b"), "valid_file", "did you mean `validation_file`"),
    ("a folder as a model", body(model="/etc"), "model", "not taken over the network"),
    ("a folder above", body(model="../models"), "model", "not taken over the network"),
    ("another job's result", body(model="ftjob-abcdefgh"), "model", "not taken over the network"),
    ("a method that is none", body(method={"type": "ppo"}), "method.type", "one of supervised, dpo"),
    ("a method without a type", body(method={"supervised": {}}), "method.type", "is missing"),
    ("a method that is a text", body(method="dpo"), "method", "is a str"),
    (
        "two methods",
        body(method={"type": "dpo", "dpo": {}, "supervised": {}}),
        "method.supervised",
        "only `method.dpo`",
    ),
    ("old beside new", body(method={"type": "dpo"}, hyperparameters={}), "hyperparameters", "method.dpo.hyper"),
    ("old ones as a list", body(hyperparameters=[1]), "hyperparameters", "is a list"),
    ("old ones out of bounds", body(hyperparameters={"n_epochs": 0}), "hyperparameters.n_epochs", "from 1 to 50"),
    ("a section as a list", body(method={"type": "dpo", "dpo": [1]}), "method.dpo", "is a list"),
    ("a key of another method", body(method={"type": "dpo", "dpo": {"tools": []}}), "method.dpo.tools", "unknown key"),
    ("a seed below", body(seed=-1), "seed", "from 0 to 2147483647"),
    ("a seed above", body(seed=2**31), "seed", "from 0"),
    ("a seed as a truth", body(seed=True), "seed", "from 0"),
    ("a suffix too long", body(suffix="a" * 65), "suffix", "64"),
    ("an empty suffix", body(suffix=""), "suffix", "at least 1"),
    ("a suffix with a colon", body(suffix="a:b"), "suffix", "pattern"),
    ("metadata as a list", body(metadata=[]), "metadata", "is a list"),
    ("too many pairs", body(metadata={str(n): "" for n in range(17)}), "metadata", "17 pairs"),
    ("a long key", body(metadata={"k" * 65: ""}), "metadata", "65 characters"),
    ("a long value", body(metadata={"k": "v" * 513}), "metadata.k", "513 characters"),
    ("a value that is no text", body(metadata={"k": 1}), "metadata.k", "is a int"),
    ("an integration", body(integrations=[{"type": "wandb", "wandb": {"project": "p"}}]), "integrations", "nowhere"),
    ("no validation file", rft(validation_file=None), "validation_file", "chooses its best checkpoint"),
    ("no grader", rft({"grader": None}), "method.reinforcement.grader", "is missing"),
    (
        "no section",
        body(validation_file="file-b", method={"type": "reinforcement"}),
        "method.reinforcement.grader",
        "is",
    ),
    ("a grader as a list", rft({"grader": [GRADER]}), "method.reinforcement.grader", "is a list"),
    (
        "the SDK's single part",
        rft({"grader": {"type": "multi", "name": "m", "graders": GRADER, "calculate_output": "exact"}}),
        "method.reinforcement.grader.graders",
        "an object from name to grader",
    ),
    (
        "a list of parts",
        rft({"grader": {"type": "multi", "name": "m", "graders": [GRADER], "calculate_output": "exact"}}),
        "method.reinforcement.grader.graders",
        "is a list",
    ),
    (
        "a wrong field of a grader",
        rft({"grader": {**GRADER, "operation": "neq"}}),
        "method.reinforcement.grader.operation",
        "`method.reinforcement.grader.operation`",
    ),
    ("a tool without a URL", rft({"tools": [{"name": "a"}]}), "method.reinforcement.tools.0.server_url", "missing"),
    ("tools as an object", rft({"tools": {"a": 1}}), "method.reinforcement.tools", "`method.reinforcement.tools`"),
    ("tools twice", rft({"agent": {"tools": []}}), "method.reinforcement.agent.tools", "OpenAI's place"),
    ("no step", rft({"max_episode_steps": 0}), "method.reinforcement.max_episode_steps", "max_episode_steps"),
    ("too many steps", rft({"max_episode_steps": 101}), "method.reinforcement.max_episode_steps", "100"),
    (
        "steps and turns",
        rft({"max_episode_steps": 5, "agent": {"limits": {"max_turns": 5}}}),
        "method.reinforcement.max_episode_steps",
        "same setting",
    ),
    (
        "a key deep inside",
        rft({"agent": {"limits": {"max_turnz": 5}}}),
        "method.reinforcement.agent.limits.max_turnz",
        "Did you mean `max_turns`",
    ),
    (
        "a loss deep inside",
        rft({"training": {"loss": {"type": "nothing"}}}),
        "method.reinforcement.training.loss.type",
        "`method.reinforcement.training.loss.type`",
    ),
    (
        "an effort",
        rft({"hyperparameters": {"reasoning_effort": "low"}}),
        "method.reinforcement.hyperparameters.reasoning_effort",
        "default",
    ),
    (
        "another bound",
        rft({"hyperparameters": {"n_epochs": 51}}),
        "method.reinforcement.hyperparameters.n_epochs",
        "50",
    ),
    ("unknown data", rft({"data": {"train": "file-x"}}), "method.reinforcement.data.train", "unknown key"),
    (
        "an unknown split",
        rft({"data": {"splits": {"h": "file-unknown"}}}),
        "method.reinforcement.data.splits.h",
        "no file",
    ),
    ("unknown demos", rft({"agent": {"demos": "file-unknown"}}), "method.reinforcement.agent.demos", "no file"),
    ("a taken name", rft({"data": {"splits": {"train": "file-h"}}}), "method.reinforcement.data", "may not be called"),
    (
        "a gate",
        rft({"training": {"penalties": {"gates": [{"part": "p", "at_least": 1}]}}}),
        "",
        "training.penalties.gates",
    ),
    ("a format", rft({"response_format": {"type": "yaml"}}), "method.reinforcement.response_format", "response_format"),
    (
        "a format with a bad schema",
        rft({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "thing"}}}}),
        "method.reinforcement.response_format",
        "no JSON Schema",
    ),
    (
        "a schema from elsewhere",
        rft({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "https://x.example/s"}}}}),
        "method.reinforcement.response_format",
        "leads nowhere",
    ),
    (
        "output_json without a format",
        rft({"grader": {**GRADER, "input": "{{sample.output_json.city}}"}}),
        "method.reinforcement.grader",
        "response_format",
    ),
    (
        "code that reads output_json",
        rft(
            {"grader": {"type": "python", "name": "p", "source": "def grade(s, i):\n    return s['output_json']['a']"}}
        ),
        "method.reinforcement.grader.source",
        "response_format",
    ),
    (
        "code of this machine",
        rft({"tools": [{"type": "python", "target": "tools.py:f"}]}),
        "method.reinforcement.tools.0",
        "not taken over the network",
    ),
    (
        "credit of this machine",
        rft({"training": {"credit": "mine.py:rule"}}),
        "method.reinforcement.training.credit",
        "not taken over the network",
    ),
]


@pytest.mark.parametrize(("given", "param", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_mistake_is_named_by_its_place_in_the_body(job_of: JobOf, given: Any, param: str, words: str) -> None:
    error = refused(job_of, given)
    assert (error.param or "").startswith(param)
    assert words in error.message
    assert "s3cret" not in error.message


def test_messages_do_not_say_where_the_server_keeps_things(job_of: JobOf, tmp_path: Path) -> None:
    for _, given, _, _ in WRONG:
        assert str(tmp_path) not in refused(job_of, given).message
