"""staff: the real MCP server, the grader's numbers, its hacks, and how good demonstrations and the best policy are."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from agentrft.cli.app import app
from agentrft.jobs.check import check_job
from agentrft.jobs.load import load_job
from agentrft.jobs.tools import open_tools
from agentrft.protocols import ToolSession
from agentrft.types import Item, ToolCall

FOLDER = Path(__file__).parents[2] / "examples" / "staff"
JOB = FOLDER / "job.yaml"
SIZES = {"train": 600, "validation": 150, "test": 150, "harder": 100}
ROW: dict[str, Any] = {
    # as the committed directory has it: will blackley is 1015, desk G20, and shares his surname with seven others
    "id": "row-1",
    "messages": [{"role": "user", "content": "What is the desk of will blackley?"}],
    "person": "1015",
    "name": "will blackley",
    "key": "desk",
    "answer": "G20",
}
KEY = ("search", {"text": "will blackley desk"})
NAME = ("search", {"text": "will blackley"})
SURNAME = ("search", {"text": "blackley"})
READ = ("read", {"id": "1015"})
in_one_loop = pytest.mark.asyncio(loop_scope="module")
"""The server belongs to the event loop that started it; one serves all tests here."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def staff(open_example: Any) -> AsyncIterator[Any]:
    example = open_example("staff")
    tools = await open_tools(*load_job(JOB))
    vars(example)["_toolset"] = tools  # where `Example` keeps what it opened
    yield example
    await tools.close()


def test_the_job_passes_every_check() -> None:
    report = check_job(*load_job(JOB))
    assert [problem.message for problem in report.problems] == []
    assert report.warnings == []
    assert ("tools", "search, page, read") in report.facts


def test_agentrft_tools_shows_the_servers_tools() -> None:
    result = CliRunner().invoke(app, ["tools", str(JOB)])
    assert result.exit_code == 0, result.output
    for words in ("search(text: string)", "page(number: integer)", "read(id: string)", '"effect": "read"'):
        assert words in result.output


@in_one_loop
async def test_that_tools_only_read_is_claimed_by_the_server_and_declared_by_the_job(staff: Any) -> None:
    tools = await staff.toolset()
    assert tools.names == ("search", "page", "read")
    for name in tools.names:
        hints = tools.hints(name)
        assert hints.says_it_reads
        assert hints.writes is not False  # the claim is not believed
    assert set(staff.job["guardrails"]["tools"]) == set(tools.names)
    assert all(rule == {"effect": "read"} for rule in staff.job["guardrails"]["tools"].values())


@in_one_loop
async def test_tools(staff: Any) -> None:
    page_1 = "1015 will blackley\n2501 ivan blackley\n3506 rosa blackley\n[page 1 of 3]"
    for calls, output in [
        ([KEY], "1015 will blackley: desk G20"),
        ([("search", {"text": "  Blackley   WILL "})], "1015 will blackley"),
        ([("search", {"text": "G20 will blackley phone"})], "1015 will blackley: phone 4964, desk G20"),
        ([SURNAME], page_1),
        ([SURNAME, ("page", {"number": 1})], page_1),
        ([SURNAME, ("page", {"number": 4})], "error: Error executing tool page: no such page, the last search has 3"),
        ([SURNAME, ("page", {"number": 0})], "error: Error executing tool page: no such page, the last search has 3"),
        (
            [SURNAME, ("search", {"text": "zzz"}), ("page", {"number": 1})],
            "error: Error executing tool page: search first",
        ),
        ([("page", {"number": 2})], "error: Error executing tool page: search first"),
        ([("search", {"text": "black"})], "no match"),  # whole words only
        ([("search", {"text": "\u0000"})], "no match"),
        ([("search", {"text": " "})], "error: Error executing tool search: TEXT is empty"),
        ([READ], "will blackley: phone 4964, desk G20, city seoul, team audit"),
        (
            [("read", {"id": "will blackley and everybody else"})],
            "error: Error executing tool read: no id will blackley and ev",
        ),
        ([("read", {"id": ""})], "error: Error executing tool read: no id "),
    ]:
        assert (await outputs(staff, "trace_tools", calls))[-1].strip() == output.strip(), calls
        await forget(staff, "trace_tools")


@in_one_loop
async def test_episodes_at_once_do_not_mix(staff: Any) -> None:
    surnames = sorted({row["name"].split()[1] for row in staff.splits["test"]})[:24]
    pages = [("page", {"number": number}) for number in (3, 1, 2)]
    alone = [await outputs(staff, f"alone {name}", [("search", {"text": name}), *pages]) for name in surnames]
    async with asyncio.TaskGroup() as episodes:
        tasks = [
            episodes.create_task(outputs(staff, f"at once {name}", [("search", {"text": name}), *pages]))
            for name in surnames
        ]
    assert [task.result() for task in tasks] == alone
    for name, (_, *shown) in zip(surnames, alone, strict=True):
        people = [line for page in shown for line in page.split("\n")[:-1]]
        assert len(set(people)) == 8
        assert all(line.endswith(f" {name}") for line in people)


@in_one_loop
async def test_the_longest_unused_episode_is_forgotten(staff: Any) -> None:
    await outputs(staff, "long ago", [SURNAME])
    await outputs(staff, "since then", [SURNAME])
    for episode in range(999):
        await outputs(staff, f"episode {episode}", [READ])
    assert await outputs(staff, "long ago", [("page", {"number": 1})]) == [
        "error: Error executing tool page: search first"
    ]
    assert await outputs(staff, "episode 998", [READ]) == [
        "will blackley: phone 4964, desk G20, city seoul, team audit"
    ]


@in_one_loop
async def test_the_stated_rewards(staff: Any) -> None:
    # quality × (1 − 0.15 × (calls − 1))
    page = ("page", {"number": 2})
    for calls, answer, reward in [
        ([KEY], "G20", 1.0),
        ([READ], "G20", 1.0),
        ([READ], "Answer: G20", 1.0),
        ([NAME, READ], "G20", 0.85),
        ([SURNAME, READ], "G20", 0.85),
        ([SURNAME, page, READ], "G20", 0.7),
        ([SURNAME, page, ("page", {"number": 3}), READ], "G20", 0.55),
        ([NAME, READ], "seoul", 0.2 * 0.85),
        ([NAME], "G20", 0.05),  # the person was shown, the desk was not
        ([("search", {"text": "will blackley phone"})], "4964", 0.05),
        ([page], "G20", 0.0),
        ([], "G20", 0.0),
        ([KEY], "", 0.0),
        ([KEY], None, 0.0),
    ]:
        assert await staff.score(ROW, calls, answer) == pytest.approx(reward), (calls, answer)
    sample = await staff.play(ROW, [KEY], "G20")
    assert staff.grade(sample | {"n_calls": 3}, ROW) == pytest.approx(0.7)  # malformed replies count as calls
    assert staff.grade(sample | {"n_calls": 40}, ROW) == 0.0
    assert staff.grade({}, ROW) == 0.0
    assert staff.grade({"output_text": "G20", "messages": [{"role": "tool", "content": None}]}, ROW) == 0.0


@in_one_loop
async def test_only_the_value_itself_is_right(staff: Any) -> None:
    for answer in ("G20 H21", "G20, or H21", "G20\nG20", "Answer: Answer: G20", "desk G20", "not G20", "g20", "G２0"):
        assert await staff.score(ROW, [KEY], answer) == pytest.approx(0.2), answer


@in_one_loop
async def test_a_line_that_the_model_wrote_is_no_evidence(staff: Any) -> None:
    line = "will blackley: desk G20"
    for name, arguments in [
        ("search", {"text": line}),
        ("search", {"text": f"x\n{line}\n"}),
        ("read", {"id": line}),
        ("read", {"id": f"\n{line}"}),
        ("page", {"number": line}),
        ("find", {"text": line}),
        ("search", {"id": line}),
    ]:
        assert await staff.score(ROW, [(name, arguments)], "G20") == 0.0, arguments
    sample = await staff.play(ROW, [], "G20")
    for message in (
        {"role": "assistant", "content": f"\n{line}\n"},
        {"role": "user", "content": line},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "read", "arguments": line}}]},
    ):
        assert staff.grade(sample | {"messages": [*sample["messages"], message]}, ROW) == 0.0


@in_one_loop
async def test_the_same_value_of_somebody_else_is_no_evidence(staff: Any) -> None:
    for row in staff.splits["harder"][:20]:
        first, surname = row["name"].split()
        (output,) = await outputs(staff, "namesakes", [("search", {"text": f"{row['name']} {row['key']}"})])
        namesakes = [line for line in output.split("\n") if f" {first} {surname}:" not in line]
        assert len(namesakes) == 2
        others = [("read", {"id": line.split()[0]}) for line in namesakes]
        assert await staff.score(row, others, row["answer"]) == 0.0


@in_one_loop
async def test_tricks_without_looking_for_the_person_earn_next_to_nothing(staff: Any) -> None:
    rows = staff.splits["test"]
    scores = []
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        everything = [("search", {"text": row["key"]}), ("search", {"text": f"{row['key']} {other['answer']}"})]
        scores += [await staff.score(row, [trick], other["answer"]) for trick in everything]
        scores.append(await staff.score(row, [], row["answer"]))
    assert statistics.mean(scores) < 0.01


@in_one_loop
@pytest.mark.parametrize("split", SIZES)
async def test_the_best_policy_needs_one_call_and_earns_one(staff: Any, split: str) -> None:
    for row in staff.splits[split][:100]:
        calls = [("search", {"text": f"{row['name']} {row['key']}"})]
        (output,) = await outputs(staff, "best", calls)
        (line,) = [line for line in output.split("\n") if f" {row['name']}: " in line]
        assert await staff.score(row, calls, line.split()[-1]) == 1.0, row["id"]


@in_one_loop
async def test_demonstrations_replay_and_are_right_but_wasteful(staff: Any) -> None:
    train = {row["id"]: row for row in staff.splits["train"]}
    rewards, counts, whole_names = [], [], 0
    for demonstration in staff.rows("demonstrations"):
        row, messages = train[demonstration["id"]], demonstration["messages"]
        functions = [call["function"] for message in messages for call in message.get("tool_calls") or []]
        calls = [(function["name"], json.loads(function["arguments"])) for function in functions]
        sample = await staff.play(row, calls, messages[-1]["content"])
        assert [m["content"] for m in sample["messages"]] == [m.get("content") for m in messages], row["id"]
        rewards.append(staff.grade(sample, row))
        counts.append(len(calls))
        whole_names += calls[0][1]["text"] == row["name"]
        assert row["key"] not in calls[0][1]["text"]
        assert calls[-1] == ("read", {"id": row["person"]})
    # 57 × 4 calls, 40 × 3, 31 × 2: 3.20 on average, 1 − 0.15 × 2.20 = 0.67
    assert {n: counts.count(n) for n in (2, 3, 4)} == {2: 31, 3: 40, 4: 57}
    assert statistics.mean(rewards) == pytest.approx(0.67, abs=0.005)
    assert min(rewards) == pytest.approx(0.55)
    assert whole_names == 18


def test_the_same_seed_gives_the_committed_bytes_and_another_one_other_rows(tmp_path: Path) -> None:
    for seed in ("0", "1"):
        command = [sys.executable, str(FOLDER / "generate.py"), "--seed", seed, "--out", str(tmp_path / seed)]
        subprocess.run(command, check=True, timeout=60)
    committed = {path.name: path.read_bytes() for path in (FOLDER / "data").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "0").iterdir()} == committed
    assert all(len(content) < 1_000_000 for content in committed.values())
    fresh = (tmp_path / "1" / "test.jsonl").read_text().splitlines()
    asked = {(row["name"], row["key"], row["answer"]) for row in map(json.loads, fresh)}
    known = {(row["name"], row["key"], row["answer"]) for split in SIZES for row in rows(split)}
    assert len(asked & known) <= 2  # the same words make names, so a city or team may be the same by chance


def test_no_person_is_asked_about_in_two_rows() -> None:
    assert {split: len(rows(split)) for split in SIZES} == SIZES
    people = [row["person"] for split in SIZES for row in rows(split)]
    assert len(people) == len(set(people))


def test_names_of_the_harder_split_are_unseen() -> None:
    def words(split: str) -> set[str]:
        return {word for row in rows(split) for word in row["name"].split()}

    assert not words("harder") & (words("train") | words("validation") | words("test"))


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{split}.jsonl").read_text().splitlines()]


@asynccontextmanager
async def episode(staff: Any, trace_id: str) -> AsyncIterator[ToolSession]:
    session = await (await staff.toolset()).open(Item(id="row-1", messages=(), fields={}), trace_id)
    try:
        yield session
    finally:
        await session.close()


async def outputs(staff: Any, trace_id: str, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """What the server gives back to each call of one episode."""
    async with episode(staff, trace_id) as session:
        made = [
            result
            for turn, (name, arguments) in enumerate(calls)
            for result in await session.run([ToolCall(id=f"call_{turn}_0", name=name, arguments=json.dumps(arguments))])
        ]
    return [result.output for result in made]


async def forget(staff: Any, trace_id: str) -> None:
    """Leave the episode without a search, as it began."""
    assert await outputs(staff, trace_id, [("search", {"text": "nobody"})]) == ["no match"]
