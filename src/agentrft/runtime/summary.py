"""What the store knows about a job, arranged for people: curves, transcripts to compare, settings, a report."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentrft.jobs.service import StoredJob
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import EpisodeRecord, Store
from agentrft.report.model import Comparison, NextStep, Report, Shown, StepPoint, ValidationPoint
from agentrft.report.terminal import question_of
from agentrft.report.wording import duration, number
from agentrft.runtime.machine import cores, versions

_MOST_EPISODES = 5_000

_LEDES = {
    "supervised": "What the loss says about demonstrations; `agentrft eval` says what the agent does.",
    "dpo": "What the loss says about preferences; `agentrft eval` says what the agent does.",
    "reinforcement": "Validation items choose the checkpoint, so their figures flatter it; `agentrft eval` measures on "
    "items that chose nothing.",
}

Side = tuple[str, str, str]
"""(label, job id, stage): one side of a comparison."""


def curves(store: Store, job_id: str) -> tuple[list[StepPoint], list[ValidationPoint]]:
    """Training figures by step, and validation rewards at theirs, from the stored metrics."""
    steps: list[StepPoint] = []
    validations: list[ValidationPoint] = []
    for entry in store.list_metrics(job_id):
        step, metrics = entry["step"], entry["metrics"]
        if (reward := metrics.get("reward_mean")) is not None:
            point = StepPoint(
                step=step, reward=reward, calls=metrics.get("calls_mean"), success=metrics.get("success_rate")
            )
            steps.append(point)
        if (reward := metrics.get("valid_reward_mean")) is not None:
            validations.append(ValidationPoint(step=step, reward=reward))
    return steps, validations


def compare_episodes(store: Store, before: Side, after: Side, *, step: int = 0) -> list[Comparison]:
    """The same items on both sides: the one whose reward changed by the median, and the one at the lower quartile.

    Chosen by rank, not picked for looks. Empty when the sides share no graded episode. `step` is the after side's.
    """
    old = _by_item(store, before, 0)
    new = _by_item(store, after, step)
    shared = [(key, old[key], new[key]) for key in old if key in new]
    ranked = sorted(shared, key=lambda one: ((one[2].reward or 0.0) - (one[1].reward or 0.0), one[0]))
    if not ranked:
        return []
    places = dict.fromkeys((len(ranked) // 2, len(ranked) // 4))
    return [_comparison(ranked[place][1], ranked[place][2], before[0], after[0]) for place in places]


def settings_of(spec: JobSpec) -> list[tuple[str, str]]:
    """Every setting of the job as dotted key and value, defaults included."""
    return list(_flattened(spec.model_dump(mode="json"), ""))


def job_report(store: Store, job: StoredJob, *, best_step: int | None) -> Report:
    """The report of one training job."""
    steps, validations = curves(store, job.id)
    facts = [("model", Path(job.model).name), ("job", job.id), ("seed", str(job.spec.seed))]
    record = store.get_job(job.id)
    ended = record["finished_at"]
    if ended:
        facts.append(("time", f"{duration(ended - record['created_at'])} on {cores()} cores"))
    facts.append(("made", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")))
    comparisons: list[Comparison] = []
    if best_step:
        sides = [
            (f"{name} training", job.id, f"step-{step:08d}") for name, step in (("before", 0), ("after", best_step))
        ]
        comparisons = compare_episodes(store, sides[0], sides[1], step=best_step)
    return Report(
        kind=f"agentrft · {job.kind} fine-tuning",
        headline=_headline(store, job, best_step),
        lede=_LEDES[job.kind],
        facts=facts,
        steps=steps,
        validations=validations,
        best_step=best_step,
        comparisons=comparisons,
        next_steps=_next_steps(job),
        notes=[] if job.status == "succeeded" else [f"This job is not complete: it is {job.status}."],
        settings=settings_of(job.spec),
        versions=versions(),
    )


def _headline(store: Store, job: StoredJob, best_step: int | None) -> str:
    """What changed, in one sentence."""
    entries = store.list_metrics(job.id)
    if job.kind == "supervised":
        nll = [entry["metrics"]["nll"] for entry in entries if entry["metrics"].get("nll") is not None]
        change = f": {number(nll[0])} to {number(nll[-1])} nats per demonstrated token" if nll else ""
        return f"Supervised fine-tuning of {Path(job.model).name}{change}"
    if job.kind == "dpo":
        margins = [entry["metrics"]["margin"] for entry in entries if entry["metrics"].get("margin") is not None]
        change = f": mean margin {number(margins[0])} to {number(margins[-1])}" if margins else ""
        return f"Preference optimisation of {Path(job.model).name}{change}"
    by_step = {point.step: point.reward for point in curves(store, job.id)[1]}
    if best_step is None or not {0, best_step} <= by_step.keys():
        return f"Reinforcement fine-tuning of {Path(job.model).name}"
    if best_step == 0:
        return f"No checkpoint did better on validation than the starting weights ({number(by_step[0])})"
    return f"Validation reward went from {number(by_step[0])} to {number(by_step[best_step])} by step {best_step}"


def _next_steps(job: StoredJob) -> list[NextStep]:
    if job.fine_tuned_model is None:
        return [NextStep(what="go on where this stopped", command=f"agentrft run {job.id}")]
    return [
        NextStep(
            what="measure it on items that training never saw",
            command=f"agentrft eval {job.id} --model {job.fine_tuned_model}",
        ),
        NextStep(what="talk to it", command=f"agentrft chat {job.fine_tuned_model} --job {job.id}"),
    ]


def _by_item(store: Store, side: Side, step: int) -> dict[str, EpisodeRecord]:
    """The first member's episode of each item of a stage, where it has a reward."""
    _, job_id, stage = side
    records = store.list_episodes(job_id, step=step, limit=_MOST_EPISODES)
    return {
        record.episode.item_id: record
        for record in records
        if record.stage == stage and record.episode.member == 0 and record.reward is not None and _is_main(record)
    }


def _is_main(record: EpisodeRecord) -> bool:
    return record.extra.get("split") in (None, "validation", "test")


def _comparison(before: EpisodeRecord, after: EpisodeRecord, old: str, new: str) -> Comparison:
    episodes = [
        Shown(label=label, episode=record.episode, reward=record.reward)
        for label, record in ((old, before), (new, after))
    ]
    return Comparison(question=question_of(episodes[0], width=300), episodes=episodes)


def _flattened(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        elif value is not None and value != {} and value != []:
            yield f"{prefix}{key}", str(value)
