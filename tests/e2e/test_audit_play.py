"""`agentrft audit --play`: the job's model, a tiny real one, plays the honest failures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.store import open_store

pytest.importorskip("torch")


def test_the_model_plays_what_limits_the_probes(
    make_job: Callable[..., Path],
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def audit(*args: str) -> tuple[dict, str]:
        monkeypatch.setattr(sys, "argv", ["agentrft", "audit", str(job), "--items", "3", "--json", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit):  # the grader pays for vowels, so it fails
            main()
        captured = capsys.readouterr()
        return json.loads(captured.out), captured.err

    job = make_job()
    played, said = audit("--play", "2")
    assert played["n_items"] == 3
    assert played["baseline"] == f"{played['n_failures']} failures among 6 episodes of the baseline"
    store = open_store()
    [stored] = store.list_jobs(limit=10)
    assert (stored["kind"], stored["status"]) == ("evaluation", "succeeded")
    assert len(store.list_episodes(stored["id"], limit=100)) == 6
    store.close()
    assert f"again with --baseline {stored['id']}" in said.replace("\n", " ")
    again, _ = audit("--baseline", stored["id"])
    assert [line for line in again["lines"] if line["name"] != "hostile_length"] == [  # its detail has times
        line for line in played["lines"] if line["name"] != "hostile_length"
    ]
