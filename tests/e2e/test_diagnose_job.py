"""`agentrft diagnose` with the torch engine: tokens from the trace, and other settings are another diagnosis."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.store import open_store


def test_the_jobs_own_model_is_diagnosed(
    make_job: Callable[..., Path],
    own_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["agentrft", *args])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    job, figures = make_job(), tmp_path / "d.json"
    code, told = run("diagnose", str(job), "--samples", "5", "--json", str(figures))
    assert code == 4  # the split has six items
    assert "tokens written" in told
    document = json.loads(figures.read_text())
    assert (document["n_items"], document["n_episodes"], document["endpoint"]) == (6, 30, None)
    assert document["engine"].endswith(" on cpu, line format")
    assert document["figures"]["generated_tokens"] > 0
    assert document["figures"]["prompt_tokens"] > 10
    # Random weights: every episode fails, most of them because a reply runs into its limit.
    assert document["failures"]["failed"] + sum(sum(item["passes"]) for item in document["items"]) == 30
    assert document["failures"]["findings"]

    code, told = run("diagnose", str(job), "--samples", "5")
    assert "diagnosed before" in told
    code, told = run("diagnose", str(job), "--samples", "6")
    assert "diagnosed before" not in told
    store = open_store()
    kinds = [(one["kind"], one["status"]) for one in store.list_jobs(limit=5)]
    store.close()
    assert kinds == [("evaluation", "succeeded")] * 2
    assert (own_home / "jobs" / document["job"] / "diagnosis.json").is_file()
