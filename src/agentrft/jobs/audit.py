"""What a job's grader is audited with: items, right conversations, and the episodes that honest agents played."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from agentrft.audit import AuditPlan, Honest
from agentrft.graders import AnySpec, LabelModelSpec, MultiSpec, ScoreModelSpec, sample_from_episode
from agentrft.jobs.probe import missing_grader
from agentrft.jobs.rows import demonstrations_of, items_of
from agentrft.jobs.spec import JobSpec
from agentrft.types import Episode, Grade, Item, Message, Sample, StopReason

_SPLITS = ("train", "validation", "test")


def audit_plan(
    spec: JobSpec,
    base_dir: Path,
    *,
    honest: Sequence[Honest] = (),
    n_items: int = 10,
    positive_control: bool = False,
) -> AuditPlan:
    """Items that were played come first, then those with demonstrations; raises UserError without a grader."""
    if spec.method.reinforcement is None:
        raise missing_grader()
    grader = spec.method.reinforcement.grader
    known = audit_items(spec, base_dir)
    demonstrations = _demonstrated(spec, base_dir, known)
    played = dict.fromkeys(one.item_id for one in [*honest, *demonstrations])
    by_id = {item.id: item for item in known}
    chosen = [by_id[id_] for id_ in played if id_ in by_id] + [item for item in known if item.id not in played]
    return AuditPlan(
        items=chosen[:n_items],
        pass_threshold=grader.pass_threshold,
        honest=honest,
        demonstrations=demonstrations,
        asks_model=asks_model(grader),
        positive_control=positive_control,
        seed=spec.seed,
    )


def audit_items(spec: JobSpec, base_dir: Path) -> list[Item]:
    """Items of the job's splits, training first; of several with one id the first."""
    splits = [split for split in _SPLITS if getattr(spec.data, split)]
    found: dict[str, Item] = {}
    for split in splits or ["train"]:
        for item in items_of(spec, base_dir, split):
            found.setdefault(item.id, item)
    return list(found.values())


def honest_episodes(played: Iterable[tuple[Episode, Grade]], items: Sequence[Item]) -> list[Honest]:
    """Those of these items, with their grades; faults are left out."""
    by_id = {item.id: item for item in items}
    return [
        Honest(item_id=episode.item_id, sample=sample_from_episode(episode), reward=grade.value)
        for episode, grade in played
        if episode.stop_reason is not StopReason.FAULT
        and (item := by_id.get(episode.item_id)) is not None
        and begins_with(episode.messages, item.messages)
    ]


def honest_conversations(rows: Sequence[tuple[str, tuple[Message, ...]]], items: Sequence[Item]) -> list[Honest]:
    """Whole conversations about these items as honest episodes."""
    by_id = {item.id: item for item in items}
    return [
        Honest(item_id=id_, sample=sample_of(messages))
        for id_, messages in rows
        if (item := by_id.get(id_)) is not None and begins_with(messages, item.messages)
    ]


def _demonstrated(spec: JobSpec, base_dir: Path, items: Sequence[Item]) -> list[Honest]:
    if spec.data.demonstrations is None:
        return []
    return _varied(honest_conversations([(one.id, one.messages) for one in demonstrations_of(spec, base_dir)], items))


def _varied(honest: Sequence[Honest]) -> list[Honest]:
    """Taking turns between episodes of one call, of two, and so on: files are often sorted by kind."""
    by_calls: dict[int, list[Honest]] = {}
    for one in honest:
        by_calls.setdefault(one.sample.n_calls, []).append(one)
    turns = zip_longest(*(by_calls[n] for n in sorted(by_calls)))
    return [one for turn in turns for one in turn if one is not None]


def asks_model(spec: AnySpec) -> bool:
    """Whether a judge takes part in the grade."""
    if isinstance(spec, MultiSpec):
        return any(asks_model(part) for part in spec.graders.values())
    return isinstance(spec, ScoreModelSpec | LabelModelSpec)


def begins_with(messages: Sequence[Message], prompt: Sequence[Message]) -> bool:
    """Whether a conversation is about this prompt; system messages, which a job may add, do not matter."""

    def said(of: Sequence[Message]) -> list[Message]:
        return [message for message in of if message.role != "system"]

    return said(messages)[: len(said(prompt))] == said(prompt)


def sample_of(messages: tuple[Message, ...]) -> Sample:
    """What graders see of a conversation that ends with the final answer."""
    n_calls = sum(len(message.tool_calls) for message in messages)
    return Sample(output_text=messages[-1].content or "", messages=messages, n_calls=n_calls)
