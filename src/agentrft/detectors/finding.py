"""What detectors find: classes of failure, who owns them, and the steps that show them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar


class Kind(StrEnum):
    """The failure classes, in the order that breaks ties (reference: MAST, τ-bench, HAL, AgentRx taxonomies)."""

    ENV_FAULT = "env_fault"
    """An outside part failed, whatever the arguments were."""
    GRADER_FAULT = "grader_fault"
    """The grader gave no number, two numbers for the same, or a pass for nothing."""
    TASK_DEFECT = "task_defect"
    """The item cannot be solved as it stands."""
    PARSE_ERROR = "parse_error"
    """A reply that cannot be read as a call or an answer."""
    UNKNOWN_TOOL = "unknown_tool"
    """A call of a tool that is not offered."""
    BAD_ARGS = "bad_args"
    """Arguments that the schema, or the tool, does not take."""
    HALLUCINATED_REF = "hallucinated_ref"
    """An id that nothing had shown."""
    WRONG_TOOL = "wrong_tool"
    """Another tool than the one that does it."""
    MISSING_STEP = "missing_step"
    """A call that successful episodes make is missing."""
    UNSAFE_WRITE = "unsafe_write"
    """A change that no successful episode makes."""
    IGNORED_OUTPUT = "ignored_output"
    """The needed value was shown and not used."""
    TRUNCATED_EVIDENCE = "truncated_evidence"
    """The needed value was cut off."""
    LOOP = "loop"
    """The same again and again."""
    EARLY_STOP = "early_stop"
    """An answer before the work was done, with room left."""
    NO_STOP = "no_stop"
    """A limit of turns, tokens, time or calls ended it (the `budget` class)."""
    CONTEXT_OVERFLOW = "context_overflow"
    """The conversation no longer fits."""
    TIMEOUT = "timeout"
    """A call, or the episode, took too long."""
    REFUSAL_OR_EMPTY = "refusal_or_empty"
    """No answer, or a refusal."""
    WRONG_ANSWER = "wrong_answer"
    """None of the above: what training is for."""


class Owner(StrEnum):
    """Who can mend it."""

    ENV = "env"
    GRADER = "grader"
    TASK = "task"
    HARNESS = "harness"
    INTERFACE = "interface"
    OUTPUT = "output"
    PROMPT = "prompt"
    AGENT = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One place in one episode that shows a finding."""

    episode_id: str
    item_id: str
    turn: int | None
    """Position in `Episode.turns`, from 0; None where it is about the whole episode."""
    call: int | None
    """Position among the calls of that turn, from 0; None where it is about the reply."""
    note: str
    """What is to be seen there, one line."""
    recovered: bool = False
    """The agent got over it: the same tool was later called for the same and answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One diagnosed problem with its evidence."""

    kind: Kind
    title: str
    owner: Owner
    description: str
    evidence: tuple[Evidence, ...]
    """In the order in which the episodes were given, then by turn; never empty."""
    proposal: str
    """What to change first."""
    target: Mapping[str, str] = field(default_factory=dict)
    """What the proposal is about, for programs: `tool`, `argument`, `before`, `example`, …"""

    @property
    def episode_ids(self) -> frozenset[str]:
        """Episodes that show it, those that got over it included."""
        return frozenset(one.episode_id for one in self.evidence)


Key = TypeVar("Key", bound=Hashable)


def by_key(hits: Iterable[tuple[Key, Evidence]]) -> dict[Key, tuple[Evidence, ...]]:
    """Evidence by what it is about, in the order of first appearance."""
    found: dict[Key, list[Evidence]] = {}
    for key, evidence in hits:
        found.setdefault(key, []).append(evidence)
    return {key: tuple(evidence) for key, evidence in found.items()}


def clip(text: str, limit: int = 80) -> str:
    """`text` on one line, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
