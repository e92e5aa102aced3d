import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentrft.errors import StoreFault
from agentrft.rollout import EpisodeKey, GradedEpisode, run_episode
from agentrft.train.journal import Journal
from agentrft.types import Grade


@pytest.fixture
async def graded(peek) -> list[GradedEpisode]:
    agent, [item] = peek.agent(peek.learner()), peek.items(1)
    episodes = []
    for member in range(4):
        key = EpisodeKey(run="ftjob-t", step=1, item=item.id, member=member)
        episode = await run_episode(item, key, agent)
        # A log-prob that needs all 17 digits.
        tokens = replace(episode.tokens, log_probs=[p / 3 for p in episode.tokens.log_probs])
        grade = Grade(value=1 / 3, sub_grades={"a": 0.1})
        episodes.append(GradedEpisode(episode=replace(episode, tokens=tokens), grade=grade))
    return episodes


def written(path: Path, graded: list[GradedEpisode]) -> Path:
    with Journal(path, job_id="ftjob-t") as journal:
        for one in graded:
            journal.add(one)
        journal.sync()
    return path


def read(path: Path) -> dict[str, GradedEpisode]:
    with Journal(path, job_id="ftjob-t") as journal:
        return journal.finished


def test_what_was_added_comes_back_exactly(graded, tmp_path):
    assert read(written(tmp_path / "journal.jsonl", graded)) == {one.episode.id: one for one in graded}


def test_every_line_is_json(graded, tmp_path):
    lines = written(tmp_path / "journal.jsonl", graded).read_text().splitlines()
    assert [json.loads(line)["record"]["episode"]["id"] for line in lines] == [one.episode.id for one in graded]


@pytest.mark.parametrize("lost", [1, 2, 40, 200])
def test_a_torn_last_line_is_forgotten_and_the_next_one_is_not_glued_to_it(graded, tmp_path, lost):
    path = written(tmp_path / "journal.jsonl", graded[:3])
    path.write_bytes(path.read_bytes()[:-lost])
    assert list(read(path)) == [one.episode.id for one in graded[:2]]
    written(path, graded[3:])
    assert list(read(path)) == [graded[i].episode.id for i in (0, 1, 3)]


def test_a_damaged_line_is_left_out(graded, tmp_path):
    path = written(tmp_path / "journal.jsonl", graded)
    data = path.read_bytes()
    # One digit of one log-prob of the second episode: still JSON, but not what was written.
    at = data.index(b"-0.", data.index(b"\n"))
    path.write_bytes(data[: at + 5] + (b"1" if data[at + 5 : at + 6] != b"1" else b"2") + data[at + 6 :])
    assert list(read(path)) == [graded[i].episode.id for i in (0, 2, 3)]


@pytest.mark.parametrize("line", [b"", b"3", b"[]", b'{"crc32":1}', b'{"crc32":1,"record":{}}', b"\xff\xfe"])
def test_what_is_no_record_is_left_out(graded, tmp_path, line):
    path = written(tmp_path / "journal.jsonl", graded[:1])
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert list(read(path)) == [graded[0].episode.id]


def test_cleared_is_empty_on_disk_too(graded, tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, job_id="ftjob-t") as journal:
        journal.add(graded[0])
        journal.clear()
        assert journal.finished == {}
        assert path.stat().st_size == 0
        journal.add(graded[1])
    assert list(read(path)) == [graded[1].episode.id]


def test_a_journal_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFault, match="could not open the journal"):
        Journal(tmp_path / "file" / "journal.jsonl", job_id="ftjob-t")
