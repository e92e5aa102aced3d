"""A job whose credit and penalties are its own, over a tiny real model; every turn can be looked at afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.store import open_store

RULE = '''
def rule(group):
    """Reward minus the mean of the group, all of it for the first turn."""
    rewards = [reward for reward in group.rewards_G if reward is not None]
    mean = sum(rewards) / len(rewards)
    return [
        [0.0 if reward is None or turn else reward - mean for turn in range(len(steps))]
        for reward, steps in zip(group.rewards_G, group.steps_G)
    ]
'''


def test_the_jobs_own_credit_and_penalties_are_what_trains(
    make_job: Callable[..., Path], own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    job = make_job(
        **{
            "steps": 1,
            "credit": "mycredit.py:rule",
            "penalties": {
                "success_range": [-1, 0],
                "tokens": {"weight": 0.5, "budget": 40},
                "truncated": "grade",
            },
            "loss": {"type": "dr_grpo", "row_tokens": 40, "kl_coef": 0.001},
        }
    )
    (job.parent / "mycredit.py").write_text(RULE)

    def cli(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["agentrft", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert not end.value.code, captured.err
        return captured.out

    cli("run", str(job))
    store = open_store()
    try:
        (stored,) = store.list_jobs(limit=1)
        records = store.list_episodes(stored["id"], limit=1000)
    finally:
        store.close()
    trained = [record for record in records if record.advantage is not None]
    assert trained
    for record in trained:
        ledger = record.extra["credit"]
        without_kl = sum(value for name, value in ledger["reward"].items() if name != "kl")
        assert record.reward == pytest.approx(without_kl)
        n_tokens = sum(turn.end - turn.start for turn in record.episode.turns)
        earned = ledger["reward"]["grade"] + 1.0  # grades are from -1 to 0; the lowest earns nothing to lose
        assert ledger["reward"].get("tokens", 0.0) == pytest.approx(-0.5 * earned * min(1.0, n_tokens / 40))
        assert all(entry["parts"]["trajectory"] == 0.0 for entry in ledger["turns"][1:])
    assert any("tokens" in record.extra["credit"]["reward"] for record in trained)
    text = " ".join(cli("show", trained[0].episode.id).split())
    assert "advantage" in text
    assert "reward: grade" in text
