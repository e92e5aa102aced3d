"""`agentrft grade`: real graders, its table, its JSON and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agentrft.cli.grade import Graded, agreement
from agentrft.data.samples import gradable
from agentrft.types import Grade

FILENAV = Path(__file__).parents[2] / "examples" / "filenav" / "job.yaml"
GRADER = """
type: multi
name: both
graders:
  close: {type: text_similarity, name: close, input: "{{sample.output_text}}", reference: "{{item.answer}}",
          evaluation_metric: fuzzy_match}
  short: {type: python, name: short, source: "def grade(sample, item):\\n    return 1 / len(sample['output_text'])\\n"}
calculate_output: 0.5 * close + 0.5 * short
"""

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Cli) -> Cli:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    (tmp_path / "grader.yaml").write_text(GRADER)
    rows = [{"item": {"answer": "42"}, "model_sample": text} for text in ("42", "4", "")]
    (tmp_path / "good.jsonl").write_text("\n".join(map(json.dumps, rows[:2])))
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)

    return partial(command_line, "grade")


def test_a_table_of_grades_with_their_parts(cli: Cli) -> None:
    code, text, _ = cli("grader.yaml", "good.jsonl")
    assert code == 0
    # "42": (1 + 1/2) / 2; "4" against "42": one of three characters differs, 2·1/3, and (2/3 + 1) / 2
    assert "0.75" in text
    assert "close 1, short 0.5" in text
    assert "0.8333" in text
    assert "2 graded, 0 without a grade; mean 0.7917, 2 distinct" in text


def test_a_sample_without_a_grade_says_why_and_ends_with_1(cli: Cli) -> None:
    code, text, _ = cli("grader.yaml", "bad.jsonl")
    assert code == 1
    assert "ZeroDivisionError" in text
    assert "2 graded, 1 without a grade" in text


def test_repeats_show_the_agreement(cli: Cli) -> None:
    code, text, _ = cli("grader.yaml", "good.jsonl", "--repeat", "3")
    assert code == 0
    assert "agreement of 3 gradings: ICC 1.00" in text
    _, alone, _ = cli("grader.yaml", "--text", "42", "--item", '{"answer": "42"}', "--repeat", "2")
    assert "agreement: undefined" in alone


def test_json_holds_every_grade(cli: Cli) -> None:
    code, text, _ = cli("grader.yaml", "bad.jsonl", "--repeat", "2", "--json")
    document = json.loads(text)
    assert (code, document["schema"], document["repeat"], document["icc"]) == (1, 1, 2, 1.0)
    assert document["grader"] == {"name": "both", "type": "multi"}
    assert [one["line"] for one in document["samples"]] == [1, 2, 3]
    assert [grade["value"] for grade in document["samples"][0]["grades"]] == [0.75, 0.75]
    failed = document["samples"][2]
    assert failed["grade"] is None
    assert failed["grades"][0]["error"] == "python_grader_runtime_error"
    assert "ZeroDivisionError" in failed["grades"][0]["traceback"]


def test_a_job_lends_its_grader(cli: Cli) -> None:
    row = json.loads((FILENAV.parent / "data" / "train.jsonl").read_text().splitlines()[0])
    item = {key: value for key, value in row.items() if key not in ("messages", "tools", "id")}
    code, text, _ = cli(str(FILENAV), "--text", "nothing", "--item", json.dumps(item), "--json")
    assert code == 0
    assert json.loads(text)["samples"][0]["grade"] == 0.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["grader.yaml"], "got neither a file of samples and --text"),
        (["grader.yaml", "good.jsonl", "--text", "x"], "got both a file of samples and --text"),
        (["grader.yaml", "none.jsonl"], "cannot read none.jsonl: no such file"),
        (["none.yaml", "good.jsonl"], "none.yaml: no such file"),
        (["grader.yaml", "--text", "x", "--item", "{a"], "--item is not JSON"),
        (["grader.yaml", "--text", "x", "--item", "3"], "`item` is 3, expected an object"),
    ],
)
def test_bad_input_is_a_message_and_2(cli: Cli, args: list[str], message: str) -> None:
    code, _, errors = cli(*args)
    assert code == 2
    assert message in " ".join(errors.split())


def test_a_grader_that_runs_what_the_model_wrote_is_warned_about(cli: Cli, tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    return eval(sample['output_text'])\n"
    (tmp_path / "risky.json").write_text(json.dumps({"type": "python", "name": "own", "source": source}))
    code, _, errors = cli("risky.json", "--text", "0.5")
    assert code == 0
    assert "line 2: eval runs text as Python" in " ".join(errors.split())


def test_the_agreement_of_a_noisy_grader() -> None:
    def graded(*values: float) -> Graded:
        return Graded(row=gradable({"model_sample": ""}), grades_K=[Grade(value=value) for value in values])

    # means 0.1 and 0.3, between 2·(0.1² + 0.1²) / 1 = 0.04, within 4·0.1² / 2 = 0.02: (0.04 − 0.02) / (0.04 + 0.02)
    assert agreement([graded(0.0, 0.2), graded(0.2, 0.4)]) == pytest.approx(1 / 3)
    assert agreement([graded(0.5, 0.5), graded(0.5, 0.5)]) is None
