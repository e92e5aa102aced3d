"""The rows of parcels: made by a seed, solved by the best policy, demonstrated the long way."""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]


@pytest.mark.parametrize("split", ["train", "validation", "test", "harder"])
async def test_the_best_policy_reads_the_question_and_earns_one(parcels: Any, split: str) -> None:
    async with parcels.tools() as tools:
        for row in parcels.rows[split][:60]:
            question = row["messages"][0]["content"]
            wanted, to = re.search(r"\w+ for \w+", question), re.search(r"\b[A-E][1-4]\b", question)
            assert wanted is not None
            assert to is not None
            find = ("find", {"text": wanted[0]})
            (line,) = await parcels.outputs(tools, row, [find])
            calls = [find, ("move", {"id": line[:3], "shelf": to[0]})]
            shown = await parcels.outputs(tools, row, calls)
            answer = re.search(r"from (\w\d)", shown[-1])
            assert answer is not None
            assert parcels.grade(parcels.sample(row, calls, shown, answer[1]), row) == 1.0, question


def test_what_and_for_whom_names_one_parcel_and_no_word_is_part_of_another(parcels: Any) -> None:
    words: set[str] = {"for", "on"}
    for split in ("train", "validation", "test", "harder"):
        for row in parcels.rows[split]:
            names = [line.rsplit(" ", 1)[0] for line in row["parcels"].values()]
            assert len(set(names)) == len(names)
            words.update(word for name in names for word in name.split())
            assert row["parcels"][row["parcel"]].endswith(f" {row['answer']}")
            assert row["to"] != row["answer"]
            owners = collections.Counter(name.split()[1] for name in names)
            assert set(owners.values()) == ({3} if split == "harder" else {1})
            assert len(names) == (15 if split == "harder" else 10)
    assert not [(a, b) for a, b in itertools.permutations(words, 2) if a in b]


async def test_demonstrations_replay_and_are_valid_but_mediocre(parcels: Any) -> None:
    train = {row["id"]: row for row in parcels.rows["train"]}
    rewards, ways = [], []
    async with parcels.tools() as tools:
        for demonstration in parcels.rows["demonstrations"]:
            row, messages = train[demonstration["id"]], demonstration["messages"]
            made = [call["function"] for message in messages for call in message.get("tool_calls") or []]
            calls = [(call["name"], json.loads(call["arguments"])) for call in made]
            shown = await parcels.outputs(tools, row, calls)
            assert shown == [message["content"] for message in messages if message["role"] == "tool"]
            rewards.append(parcels.grade(parcels.sample(row, calls, shown, messages[-1]["content"]), row))
            ways.append([name for name, _ in calls])
    assert len(ways) == 128
    assert statistics.mean(rewards) == pytest.approx(0.79, abs=0.03)
    assert statistics.mean(map(len, ways)) == pytest.approx(3.3, abs=0.15)
    assert min(rewards) >= 0.7
    assert sum(way[0] == "find" for way in ways) == 18  # of 128: 14 %
    assert ["find", "move"] not in ways  # the best: never shown
    assert all(way == ["find", "move", "list"] for way in ways if "find" in way)
    assert sum(way[-1] == "move" for way in ways) > 40  # to answer after the move is shown, after walks


def test_rows_are_made_by_the_seed_and_shared_by_no_two_files(parcels: Any, tmp_path: Path) -> None:
    def made(seed: int) -> dict[str, bytes]:
        out = tmp_path / str(seed)
        command = [sys.executable, str(parcels.folder / "generate.py"), "--seed", str(seed), "--out", str(out)]
        subprocess.run(command, check=True, timeout=60)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    def content(row: Row) -> str:
        text = json.dumps({key: value for key, value in row.items() if key != "id"}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    assert made(0) == {path.name: path.read_bytes() for path in (parcels.folder / "data").iterdir()}
    sizes = {"train": 600, "validation": 150, "test": 150, "harder": 100}
    assert {name: len(parcels.rows[name]) for name in sizes} == sizes
    known = [content(row) for name in sizes for row in parcels.rows[name]]
    assert len(known) == len(set(known))
    assert not {content(json.loads(line)) for line in made(1)["test.jsonl"].splitlines()} & set(known)
