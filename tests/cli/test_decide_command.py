"""`agentrft decide` without a grader, and with a diagnosis and an optimisation of the same agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.load import load_job
from agentrft.jobs.service import create_job, stored_job
from agentrft.ladder.decided import latest_decision
from agentrft.protocols import Store
from agentrft.runtime.diagnosed import Settings, job_for, write_diagnosis
from agentrft.store import open_store

FILENAV = Path(__file__).parents[2] / "examples" / "filenav" / "job.yaml"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Run) -> Run:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))

    return partial(command_line, "decide")


@pytest.mark.parametrize(("pairs", "verdict"), [(240, "dpo"), (3, "collect")])
def test_a_job_without_a_grader_is_decided_from_its_data(run: Run, tmp_path: Path, pairs: int, verdict: str) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "a"}],
        "non_preferred_output": [{"role": "assistant", "content": "b"}],
    }
    rows = "".join(json.dumps({**pair, "id": f"p{n}"}) + "\n" for n in range(pairs))
    (tmp_path / "pairs.jsonl").write_text(rows)
    job = tmp_path / "job.yaml"
    job.write_text("model: m\nmethod: {type: dpo}\ndata: {preferences: pairs.jsonl}\n")
    code, out, _ = run(str(job), "--json")
    document = json.loads(out)
    assert (code, document["verdict"], document["diagnosis"]) == (0, verdict, None)
    assert document["numbers"]["pairs"] == pairs


def kept(store: Store, n: int = 60) -> dict[str, Any]:
    """A diagnosis of filenav in the store: every other item is mixed, and nothing is wrong with the interface."""
    spec, base_dir = load_job(str(FILENAV))
    settings = Settings(split="train", items=(), samples=8, model="m")
    job = job_for(store, spec, base_dir, settings)
    paths = {"calls_passed": [3], "calls_failed": [3], "demos": 1, "pairs": 1, "likeness": 0.4, "copied": 0.9}
    items = []
    for place in range(n):
        passes = [1, 0, 1, 0, 0, 0, 0, 0] if place % 2 else [0] * 8
        failed = {"failed": passes.count(0), "failed_interface": 0, "failed_format": 0, "faults": 0, "no_grade": 0}
        items.append({"rewards": passes, "passes": passes, "paths": paths, **failed})
    document = {
        "job": job.id,
        "model": "m",
        "endpoint": None,
        "split": "train",
        "n_items": n,
        "samples": 8,
        "bundle": bundle_hash(spec, base_dir),
        "created_at": 0.0,
        "pace": {"episodes": 480, "wall_s": 240.0, "per_hour": 7200.0},
        "grader": {"name": "reward", "kind": "code"},
        "grading": {"repeat": {"icc": 1.0}, "second": None, "fooled_by": []},
        "failures": {"findings": []},
        "figures": {"stop_reasons": {"answered": 8 * n}},
        "items": items,
    }
    write_diagnosis(job, document)
    return document


def optimised(verdict: str, low: float, mean: float, high: float) -> None:
    """What `agentrft optimise` leaves for filenav's bundle."""
    spec, base_dir = load_job(str(FILENAV))
    gain = {"mean": mean, "low": low, "high": high, "n_items": 50, "n_episodes": 200}
    tried = [{"kind": kind, "component": "-", "why": "-"} for kind in ("prompt", "tools", "outputs") * 6]
    report = {"bundle": bundle_hash(spec, base_dir), "verdict": verdict, "tried": tried, "confirmation": {"gain": gain}}
    with closing(open_store()) as store:
        create_job(store, spec, base_dir, kind="evaluation", extra={"optimisation": {"key": "k", "report": report}})


def test_a_search_too_small_to_say_ends_with_4_and_does_not_hide_the_verdict(run: Run) -> None:
    store = open_store()
    diagnosis = kept(store)
    code, out, _ = run(str(FILENAV), "--json")
    document = json.loads(out)
    assert (code, document["verdict"], document["plateau"]["state"]) == (0, "reinforcement", "untried")
    assert document["diagnosis"]["job"] == diagnosis["job"]
    # 12 steps of 6 items × 8 episodes; half of the items have signal, so twice as many are played.
    assert document["cost"] == {"episodes": 1152, "hours": 1152 / 7200}
    optimised("no_reliable_change", -0.1, 0.02, 0.14)
    code, out, _ = run(str(FILENAV))
    assert code == 4
    assert "reinforcement fine-tuning" in out
    assert "underpowered" in out
    decision = latest_decision(stored_job(store, diagnosis["job"]))
    events = [event["message"] for event in store.list_events(diagnosis["job"])]
    store.close()
    assert decision is not None
    assert decision["plateau"]["state"] == "underpowered"
    assert sum(message.startswith("Decided: reinforcement") for message in events) == 2


@pytest.mark.parametrize(
    ("verdict", "bounds", "state", "decided"),
    [
        ("no_reliable_change", (-0.02, 0.0, 0.03), "exhausted", "reinforcement"),
        ("adopted", (0.01, 0.06, 0.11), "improving", "optimise"),
    ],
)
def test_what_optimise_found_counts(
    run: Run, verdict: str, bounds: tuple[float, float, float], state: str, decided: str
) -> None:
    store = open_store()
    kept(store)
    store.close()
    optimised(verdict, *bounds)
    code, out, _ = run(str(FILENAV), "--json")
    document = json.loads(out)
    assert (code, document["plateau"]["state"], document["verdict"]) == (0, state, decided)
