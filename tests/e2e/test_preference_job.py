"""From rollouts to preferences and back, over a tiny real model: `run`, `pairs`, `collect`, `check`, `run` again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.store import open_store

MakeJob = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread():
    """The model is so small that a second thread costs more than it brings."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cli(own_home: Path, command_line: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """cli("jobs", "list"): what the command printed; it must end well."""

    def run(*args: str) -> str:
        code, out, err = command_line(*args)
        assert code == 0, out + err
        return out + err

    return run


def newest_job() -> dict[str, object]:
    store = open_store()
    try:
        return store.list_jobs(limit=1)[0]
    finally:
        store.close()


def metrics_of(job_id: str) -> list[dict[str, float]]:
    store = open_store()
    try:
        return [entry["metrics"] for entry in store.list_metrics(job_id)]
    finally:
        store.close()


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_episodes_become_pairs_and_demonstrations_that_train(make_job: MakeJob, cli: Callable[..., str]) -> None:
    job = make_job(lora=None, dtype="float32")  # random weights learn little through an adapter
    folder, document = job.parent, json.loads(job.read_text())
    document["method"]["supervised"]["hyperparameters"] = {"n_epochs": 24, "batch_size": 8, "learning_rate": 5e-3}
    write(job, document)
    # Half of the demonstrations answer in vowels, half do not: so does the model then, and the grader tells them apart.
    talks = [
        {"messages": [{"role": "user", "content": f"What does red{n} mean?"}, {"role": "assistant", "content": word}]}
        for n in range(8)
        for word in ("one ooo", "xxxx fox")
    ]
    (folder / "data" / "demonstrations.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    cli("run", str(job), "--method", "supervised")
    warm = str(newest_job()["id"])
    cli("eval", str(job), "--model", warm, "--split", "train", "--samples", "8")
    rollouts = str(newest_job()["id"])

    cli("pairs", rollouts, "--out", str(folder / "pairs.jsonl"), "--margin", "0.1", "--length-ratio", "4")
    preferring = write(
        folder / "dpo.json",
        document
        | {
            "method": {
                "type": "dpo",
                "dpo": {"hyperparameters": {"n_epochs": 4, "batch_size": 4, "learning_rate": 1e-3, "beta": 0.3}},
            },
            "data": {"preferences": "pairs.jsonl", "preferences_validation": "pairs_held_out.jsonl"},
        },
    )
    held_out = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    for row in held_out:
        row["input"]["messages"][1]["content"] += " Say it."
    (folder / "pairs_held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    assert "pairs, " in cli("check", str(preferring))
    shown = cli("run", str(preferring), "--from", warm)
    assert "Preference optimisation of" in shown
    trained = newest_job()
    assert (trained["kind"], trained["status"]) == ("dpo", "succeeded")
    steps = metrics_of(str(trained["id"]))
    assert steps[-1]["valid_preferred_frac"] >= 0.8
    assert steps[-1]["margin"] > steps[0]["margin"] + 0.5
    # The reference is the warmed-up model that the job began with.
    assert steps[0]["margin"] == pytest.approx(0.0, abs=1e-5)
    assert "margin" in cli("jobs", "show", str(trained["id"]))

    cli("collect", rollouts, "--min-reward", "-1", "--out", str(folder / "good.jsonl"))
    imitating = write(
        folder / "good.json",
        document
        | {
            "method": {"type": "supervised", "supervised": document["method"]["supervised"]},
            "data": {"demonstrations": "good.jsonl"},
        },
    )
    cli("check", str(imitating))
