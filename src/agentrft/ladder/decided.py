"""Decisions that are kept, and what to type after one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrft.errors import StoreFault
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.service import StoredJob, job_folder
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.decide import Decision, decide
from agentrft.ladder.job_facts import item_facts, job_facts
from agentrft.ladder.rules import Verdict
from agentrft.protocols import Store
from agentrft.writing import write_whole

FILE = "decision.json"
_MOST_JOBS_SEARCHED = 10_000
_SHOWN = ("job", "model", "endpoint", "split", "n_items", "samples", "bundle", "created_at")

_NEXT: Mapping[Verdict, tuple[str, ...]] = {
    Verdict.TOO_LITTLE_DATA: ("agentrft diagnose {job} --items 50 --samples 8",),
    Verdict.FIX_ENVIRONMENT: ("agentrft tools {job}",),
    Verdict.FIX_GRADER: ("agentrft audit {job}",),
    Verdict.DONE: (),
    Verdict.OPTIMISE: ("agentrft optimise {job}",),
    Verdict.COLLECT: (),
    Verdict.SUPERVISED: ("agentrft run {job} --method supervised",),
    Verdict.SUPERVISED_THEN_REINFORCEMENT: ("agentrft climb {job}",),
    Verdict.DPO: ("agentrft run {job} --method dpo",),
    Verdict.REINFORCEMENT: ("agentrft run {job} --method reinforcement",),
    Verdict.REJECTION_SAMPLING_OR_DPO: (
        "agentrft diagnose {job} --split train, then agentrft collect or agentrft pairs of its job",
    ),
}


def decide_job(
    store: Store, spec: JobSpec, base_dir: Path, diagnosis: Mapping[str, Any] | None, *, job: str
) -> tuple[Decision, dict[str, Any]]:
    """The decision, and the document that is kept with the diagnosis it was made from; `job` as the user typed it.

    `diagnosis` is None for a job without a grader. Raises UserError for data files that cannot be read.
    """
    facts = job_facts(spec, base_dir, diagnosis, find_optimisations(store, spec, base_dir))
    decision = decide(item_facts(diagnosis) if diagnosis else [], facts, seed=spec.seed)
    document: dict[str, Any] = {
        **decision.to_json(),
        "diagnosis": {name: diagnosis[name] for name in _SHOWN} if diagnosis else None,
        "next_steps": next_steps(decision.verdict, job),
        "cost": reinforcement_cost(spec, decision, diagnosis),
    }
    if diagnosis:
        keep_decision(store, diagnosis["job"], document)
    return decision, document


def reinforcement_cost(
    spec: JobSpec, decision: Decision, diagnosis: Mapping[str, Any] | None
) -> dict[str, float | None] | None:
    """`{episodes, hours}` that the job's reinforcement will play at the pace of the diagnosis; None for other verdicts.

    Groups without signal are played and dropped, up to `training.oversample` times as many; updates are not counted.
    """
    method, mixed = spec.method.reinforcement, decision.facts.mixed
    if decision.verdict is not Verdict.REINFORCEMENT or method is None or diagnosis is None or mixed is None:
        return None
    wanted = spec.training.steps * method.hyperparameters.batch_size * spec.training.group_size
    episodes = wanted * min(spec.training.oversample, 1 / max(mixed, 1e-9))
    pace = diagnosis.get("pace")
    return {"episodes": round(episodes), "hours": episodes / pace["per_hour"] if pace else None}


def next_steps(verdict: Verdict, job: str) -> list[str]:
    """Commands that follow from the verdict; `job` as the user typed it."""
    return [command.format(job=job) for command in _NEXT[verdict]]


def keep_decision(store: Store, job_id: str, document: Mapping[str, Any]) -> Path:
    """Keep it beside the diagnosis that it was made from, with an event; raises StoreFault when the disk refuses."""
    path = job_folder(job_id) / FILE
    try:
        write_whole(path, json.dumps(document, indent=1, allow_nan=False))
    except OSError as error:
        raise StoreFault(f"could not write {path}: {error}; free disk space") from error
    data = {"decision": {name: document[name] for name in ("verdict", "rule", "stability")}}
    store.add_event(job_id, f"Decided: {document['verdict']} (rule {document['rule']}): {document['why']}", data=data)
    return path


def latest_decision(job: StoredJob) -> dict[str, Any] | None:
    """The newest decision from that job's diagnosis as JSON data (docs/decide.md); None when there is none."""
    path = job.folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def find_optimisations(store: Store, spec: JobSpec, base_dir: Path) -> list[dict[str, Any]]:
    """Reports of the optimisations of this bundle, oldest first; empty when none has ended."""
    bundle = bundle_hash(spec, base_dir)
    jobs = reversed(store.list_jobs(limit=_MOST_JOBS_SEARCHED))
    reports = (job["optimisation"].get("report") for job in jobs if "optimisation" in job)
    return [report for report in reports if report is not None and report["bundle"] == bundle]
