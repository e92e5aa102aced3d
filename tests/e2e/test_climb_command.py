"""`agentrft climb` on the command line, with a tiny real model: the whole ladder, and that of `--only-train`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentrft.cli.app import app
from agentrft.errors import UserError
from agentrft.store import open_store

MakeJob = Callable[..., Path]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["climb", *map(str, arguments)], catch_exceptions=False)


def more_items(job: Path, n: int) -> None:
    """Give every split `n` items, which the decisions need; the demonstrations too."""
    for path in (job.parent / "data").glob("*.jsonl"):
        rows = path.read_text().splitlines()
        longer = [json.loads(rows[place % len(rows)]) for place in range(n)]
        named = [{**row, "id": f"{path.stem}-{place}"} for place, row in enumerate(longer)]
        path.write_text("".join(json.dumps(row) + "\n" for row in named))


def test_the_whole_ladder(make_job: MakeJob, own_home: Path, tmp_path: Path) -> None:
    job, figures = make_job(steps=1), tmp_path / "out" / "figures.json"
    more_items(job, 12)
    before = job.read_bytes()
    command = (job, "--split", "test", "--split", "new_names", "--episodes", "200", "--methods", "reinforcement")
    done = run(*command, "--json", figures)
    document = json.loads(figures.read_text())
    rungs = {rung["name"]: rung for rung in document["rungs"]}
    assert rungs["base"]["splits"].keys() == {"test", "new_names"}
    decision = rungs["base"]["decision"]
    assert decision["diagnosis"]["n_items"] == 12  # × 8 episodes
    assert document["budget"]["spent"] in (96, 192)
    assert document["stopped"] is None
    assert done.exit_code in (0, 3, 4), done.output
    assert document["recommendation"] in done.output
    assert f"rule {decision['rule']}: " in done.output
    assert job.read_bytes() == before
    (page,) = own_home.glob("ladders/task-whole-seed0-*/report.html")
    assert "What each rung cost" in page.read_text()
    store = open_store()
    assert store.get_job(document["id"])["climb"]["report"] == document
    store.close()
    again = run(*command, "--json", figures)
    assert json.loads(figures.read_text()) == document
    assert again.exit_code == done.exit_code


def test_the_fixed_ladder_is_still_there(make_job: MakeJob, own_home: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run(make_job(steps=1), "--only-train", "--json", figures)
    assert done.exit_code == 0, done.output
    assert json.loads(figures.read_text())["stages"].keys() == {"base", "sft", "rft"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only-train", "--episodes", "100"], "--episodes is for the whole ladder"),
        (["--only-train", "--methods", "dpo"], "--methods is for the whole ladder"),
        (["--methods", "dpo,ppo"], "--methods names 'ppo', expected some of supervised, rejection, dpo, reinforcement"),
        (["--split", "nowhere"], "the job has no split 'nowhere'"),
        (["--methods", "dpo,dpo"], "--methods names one of them twice"),
    ],
)
def test_what_cannot_take_effect_is_refused(
    options: list[str], message: str, make_job: MakeJob, own_home: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run(make_job(), *options)
    assert message in caught.value.message
