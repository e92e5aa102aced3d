"""`agentrft probe` over a tiny real model: the weights that played an episode go on with it, token for token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.protocols import EpisodeFilter, EpisodeRecord
from agentrft.store import open_store

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(own_home: Path, command_line: Cli) -> Cli:
    return command_line


def newest(**wanted: object) -> list[EpisodeRecord]:
    store = open_store()
    try:
        job = store.list_jobs(limit=1)[0]["id"]
        return store.list_episodes(job, wanted=EpisodeFilter(**wanted))  # type: ignore[arg-type]  # as given
    finally:
        store.close()


def test_the_model_of_an_evaluation_goes_on(cli: Cli, make_job: Callable[..., Path], tiny_model: Path) -> None:
    assert cli("eval", str(make_job()), "--samples", "8")[0] == 0
    record = max(newest(), key=lambda one: (len(one.episode.turns), one.episode.n_calls))
    assert record.episode.turns[0].results  # an unreadable call and what it was told, at least
    episode, turn = record.episode, len(record.episode.turns)
    code, out, err = cli("probe", episode.id, "--turn", str(turn), "--samples", "4", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["model"] == str(tiny_model)
    assert document["replay"]["equal"]
    assert document["after"]["reward"]["mean"] == pytest.approx(record.reward)
    assert record.episode.tokens is not None
    ids, start = list(record.episode.tokens.ids), record.episode.turns[-1].start
    continued = {record.extra["continues"]["from"]: record.episode.tokens for record in newest()}
    assert list(continued["before"].ids)[:start] == ids[:start]
    assert list(continued["after"].ids) == ids


def test_an_episode_of_training_needs_the_weights_of_its_step(cli: Cli, make_job: Callable[..., Path]) -> None:
    assert cli("run", str(make_job(steps=3)))[0] == 0
    trained, validated = {}, newest(phase="validation", step=2)[0]
    for step in (1, 2, 3):
        trained[step] = newest(phase="train", step=step)[0].episode.id
    # Checkpoints are those of steps 0, 2 and 3: step 1's episodes are of the first, step 3's of the second.
    for episode, name in (
        (trained[1], "step-00000000"),
        (trained[3], "step-00000002"),
        (validated.episode.id, "step-00000002"),
    ):
        code, out, err = cli("probe", episode, "--turn", "1", "--samples", "4", "--json")
        assert code == 0, err
        assert Path(json.loads(out)["model"]).name == name
    code, _, err = cli("probe", trained[2], "--turn", "1", "--samples", "4")
    assert code == 2
    assert "the weights after step 1" in " ".join(err.split())
    nearest = next(word for word in err.split() if word.rstrip(".").endswith("step-00000000")).rstrip(".")
    code, _, err = cli("probe", trained[2], "--turn", "1", "--samples", "4", "--model", nearest)
    assert code == 0, err
