"""`agentrft audit` on the examples, with their real graders; its options, exit codes and page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentrft.data.rows import read_items
from agentrft.graders import parse_grader
from agentrft.jobs.audit import asks_model, begins_with
from agentrft.protocols import EpisodeRecord
from agentrft.rollout.ids import EpisodeKey
from agentrft.store import open_store
from agentrft.types import Episode, Grade, Message, StopReason, Turn

EXAMPLES = Path(__file__).parents[2] / "examples"
FILENAV = EXAMPLES / "filenav"
JOB = "ftjob-aaaabbbbccccddddeeeeffff"

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Cli) -> Cli:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))

    def run(*args: str) -> tuple[int, str, str]:
        code, out, err = command_line("audit", *args)
        assert "\x1b" not in out
        return code, out, err

    return run


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """An example's job in a folder of its own, with a text in the job file replaced."""

    def copy(name: str, old: str, new: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        job = folder / "job.yaml"
        job.write_text(job.read_text().replace(old, new))
        return job

    return copy


@pytest.mark.parametrize("name", ["filenav", "units", "shopdb"])
def test_the_examples_pass_with_their_real_graders(cli: Cli, name: str) -> None:
    code, text, _ = cli(str(EXAMPLES / name / "job.yaml"), "--json")
    document = json.loads(text)
    assert [line for line in document["lines"] if line["verdict"] != "safe"] == []
    assert code == 0
    assert document["passed"]
    # Demonstrations give right answers something to stand on: pairs and the permutation say something.
    assert not [line["name"] for line in document["lines"] if "says little" in line["detail"]]


def test_the_table_says_what_was_found_within_80_columns(cli: Cli) -> None:
    code, text, _ = cli(str(FILENAV / "job.yaml"), "--items", "2")
    assert code == 0
    assert "every_option" in text
    assert "synthetic: " in text
    assert "found nothing to fool this grader with" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_weak_grader_ends_with_1_and_says_what_to_change(
    cli: Cli, copied: Callable[..., Path], tmp_path: Path
) -> None:
    fields = "input: '{{sample.output_text}}', reference: '{{item.answer}}', operation: like"
    weak = f"{{type: string_check, name: has, {fields}}}"
    job = copied("filenav", "{type: python, name: reward, source_file: grader.py}", weak)
    page = tmp_path / "audit.html"
    code, text, _ = cli(str(job), "--items", "3", "--html", str(page))
    assert code == 1
    assert "✗ negation" in text
    assert "compare the whole answer with the reference" in text
    assert "this grader can be fooled" in text
    html = page.read_text()
    assert "<script" not in html
    assert "&lt;think&gt;" in html  # evidence is escaped
    assert "<think>" not in html
    assert "http://" not in html
    assert "https://" not in html


def stored_episode(member: int, answer: str) -> Episode:
    item = next(read_items(FILENAV / "data" / "test.jsonl"))
    key = EpisodeKey(run=JOB, step=0, item=item.id, member=member)
    reply = Message(role="assistant", content=answer)
    system = Message(role="system", content="Answer questions about config files. Use few commands.")
    return Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id=item.id,
        step=0,
        member=member,
        attempt=0,
        messages=(system, *item.messages, reply),
        turns=(Turn(reply=reply),),
        stop_reason=StopReason.ANSWERED,
    )


def store_baseline(*episodes: Episode) -> None:
    store = open_store()
    store.create_job(
        {"id": JOB, "status": "succeeded", "kind": "evaluation", "model": "m", "spec": {}, "base_dir": "/"}
    )
    graded = [
        EpisodeRecord(job_id=JOB, phase="test", stage="base", episode=one, grade=Grade(value=0.1 * one.member))
        for one in episodes
    ]
    store.add_episodes(JOB, graded)
    store.close()


def test_a_stored_job_sets_the_limit(cli: Cli) -> None:
    store_baseline(*(stored_episode(member, "no idea") for member in range(4)))
    code, text, _ = cli(str(FILENAV / "job.yaml"), "--baseline", "aaaa", "--items", "1", "--json")
    document = json.loads(text)
    assert code == 0
    assert "failures among" in document["baseline"]
    # Failures 0, 0.1, 0.2, 0.3: position 0.9 × 3 = 2.7, so 0.2 + 0.7 × 0.1.
    assert document["failure_limit"] == pytest.approx(0.27)


def test_a_file_of_conversations_is_a_baseline_too(cli: Cli, tmp_path: Path) -> None:
    row = json.loads((FILENAV / "data" / "test.jsonl").read_text().splitlines()[0])
    conversation = [*row["messages"], {"role": "assistant", "content": "no idea"}]
    file = tmp_path / "played.jsonl"
    file.write_text(json.dumps({"id": row["id"], "messages": conversation}) + "\n")
    code, text, _ = cli(str(FILENAV / "job.yaml"), "--baseline", str(file), "--items", "1", "--json")
    assert code == 0
    assert json.loads(text)["n_failures"] == 1


def test_a_baseline_of_other_items_is_a_user_error(cli: Cli) -> None:
    store_baseline(replace(stored_episode(0, "no idea"), item_id="elsewhere"))
    code, _, said = cli(str(FILENAV / "job.yaml"), "--baseline", JOB)
    assert code == 2
    assert "holds no episode of this job's items" in said


@pytest.mark.parametrize(("args", "word"), [(("--baseline", "zz"), "no job begins"), ((), "no-such.yaml")])
def test_what_is_not_there_is_a_user_error(cli: Cli, args: tuple[str, ...], word: str) -> None:
    job = FILENAV / ("job.yaml" if args else "no-such.yaml")
    code, _, said = cli(str(job), *args)
    assert code == 2
    assert word in said


def test_right_answers_are_asked_for_by_an_option(cli: Cli, copied: Callable[..., Path]) -> None:
    code, text, _ = cli(str(FILENAV / "job.yaml"), "--reference", "--json")
    found = {line["name"]: line for line in json.loads(text)["lines"]}
    assert (code, found["reference"]["verdict"], found["reference"]["detail"]) == (0, "safe", "10 right answers pass")
    strict = copied("filenav", "source_file: grader.py}", "source_file: grader.py, pass_threshold: 1.1}")
    code, text, _ = cli(str(strict), "--reference", "--items", "2")
    assert code == 1
    assert "✗ reference" in text
    assert "2 of 2 right answers do not pass" in text


def test_episodes_come_from_one_place(cli: Cli) -> None:
    code, _, said = cli(str(FILENAV / "job.yaml"), "--play", "4", "--baseline", JOB)
    assert code == 2
    assert "got --play and --baseline" in said


def test_a_page_that_cannot_be_written_is_a_user_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    code, _, said = cli(str(FILENAV / "job.yaml"), "--items", "1", "--html", str(tmp_path / "folder.html"))
    assert code == 2
    assert "cannot be written: Is a directory" in said.replace("\n", " ")


def test_judges_are_found_inside_multi() -> None:
    judge = {"type": "score_model", "name": "j", "model": "m", "input": [{"role": "user", "content": "?"}]}
    both = {"type": "multi", "name": "all", "graders": {"j": judge}, "calculate_output": "j"}
    plain = {"type": "python", "name": "p", "source": "def grade(sample, item): return 0.0"}
    assert [asks_model(parse_grader(one)) for one in (judge, both, plain)] == [True, True, False]


def test_a_system_message_does_not_make_another_prompt() -> None:
    asked, other = Message(role="user", content="a"), Message(role="user", content="b")
    system = Message(role="system", content="s")
    assert begins_with((system, asked, other), (asked,))
    assert not begins_with((other,), (asked,))
