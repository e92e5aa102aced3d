"""What the choice of a method is made from: the episodes of a diagnosis, item by item, and what the job has besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, Literal

from agentrft.ladder.plateau import Plateau

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """One item's episodes. Resampling items resamples everything that is computed from them."""

    rewards: Sequence[float]
    passes: Sequence[bool]
    faults: int = 0
    no_grade: int = 0
    failed: int = 0
    failed_interface: int = 0
    """Of the failed: owned by prompt, tools, outputs or limits."""
    failed_format: int = 0
    """Of the failed: unreadable calls, empty answers, refusals."""
    calls_passed: Sequence[int] = ()
    calls_failed: Sequence[int] = ()
    demos: int = 0
    """Own solutions that could be imitated."""
    pairs: int = 0
    """Own failures that a success of about the same length stands against."""
    likeness: float | None = None
    copied: float | None = None

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> ItemFacts:
        """From an entry of the diagnosis' `items`."""
        paths = item["paths"]
        names = ("rewards", "faults", "no_grade", "failed", "failed_interface", "failed_format")
        of_paths = ("calls_passed", "calls_failed", "demos", "pairs", "likeness", "copied")
        return cls(
            passes=[bool(passed) for passed in item["passes"]],
            **{name: item[name] for name in names},
            **{name: paths[name] for name in of_paths},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What is known of the job, whichever items were played. None is not known."""

    grader: Literal["code", "endpoint", "judge"] | None
    """None: the job has none."""
    icc: float | None = None
    rho: float | None = None
    """Rank correlation with `audit.grader`."""
    fooled_by: Sequence[str] = ()
    demos: int = 0
    demo_calls: float | None = None
    """Median tool calls of the demonstrations."""
    demo_likeness: float | None = None
    """How alike the demonstrated outputs of nearly the same inputs are."""
    pairs: int = 0
    """Preference pairs that the job names."""
    resettable: bool | None = True
    """Whether tools start afresh for every episode."""
    plateau: Plateau = field(default_factory=Plateau)
    top_ceiling: float = 0.0
    """What mending the best finding could add to the pass rate, at most."""
    cut_replies: float = 0.0
    """Share of episodes that ended because a reply ran into its token limit."""
    is_ours: bool = True
    """Whether the model that played can be trained here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The numbers that rules compare. None where nothing can be said: a rule that needs it does not hold."""

    job: JobFacts
    n_items: int = 0
    samples: int = 0
    """Results of the median item, K."""
    pass_1: float | None = None
    pass_k: float | None = None
    never: float | None = None
    """Share of items that no episode solved, Z0."""
    always: float | None = None
    mixed: float | None = None
    """Share of items whose rewards differ, L."""
    headroom: float | None = None
    """Mean over items of the best minus the mean: of passes where rewards are 0 or 1, else of rewards."""
    faults: float | None = None
    no_grade: float | None = None
    interface_share: float | None = None
    format_share: float | None = None
    horizon: float | None = None
    """Median tool calls of successful episodes; of demonstrations where none succeeded, else of all."""
    predictability: float | None = None
    """How alike successful episodes are, times the share of arguments that stand in the prompt."""
    self_demos: int = 0
    rollout_pairs: int = 0

    def numbers(self) -> dict[str, float | int | None]:
        """Those of the episodes and of the job's data, by name."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "job"}
        job = {name: getattr(self.job, name) for name in ("icc", "rho", "demos", "pairs", "top_ceiling")}
        return {**own, **job}


def facts_of(items: Sequence[ItemFacts], job: JobFacts) -> Facts:
    """The numbers of these items; with no graded episode only the job's own."""
    graded = [item for item in items if item.passes]
    if not graded:
        return Facts(job=job, horizon=job.demo_calls, predictability=job.demo_likeness)
    shares = [fmean(item.passes) for item in graded]
    failed = sum(item.failed for item in items)
    played = sum(len(item.passes) + item.no_grade for item in items)
    return Facts(
        job=job,
        n_items=len(graded),
        samples=int(median(len(item.passes) for item in graded)),
        pass_1=fmean(shares),
        pass_k=fmean(any(item.passes) for item in graded),
        never=fmean(share == 0 for share in shares),
        always=fmean(share == 1 for share in shares),
        mixed=fmean(max(item.rewards) - min(item.rewards) > _TOLERANCE for item in graded),
        headroom=_headroom(graded),
        faults=sum(item.faults for item in items) / (played + sum(item.faults for item in items)),
        no_grade=sum(item.no_grade for item in items) / played,
        interface_share=sum(item.failed_interface for item in items) / failed if failed else 0.0,
        format_share=sum(item.failed_format for item in items) / failed if failed else 0.0,
        horizon=_horizon(graded, job),
        predictability=_predictability(graded, job),
        self_demos=sum(item.demos for item in items),
        rollout_pairs=sum(item.pairs for item in items),
    )


def _headroom(items: Sequence[ItemFacts]) -> float:
    if all(reward in (0.0, 1.0) for item in items for reward in item.rewards):
        return fmean(any(item.passes) - fmean(item.passes) for item in items)
    return fmean(max(item.rewards) - fmean(item.rewards) for item in items)


def _horizon(items: Sequence[ItemFacts], job: JobFacts) -> float:
    passed = [calls for item in items for calls in item.calls_passed]
    if passed:
        return float(median(passed))
    if job.demo_calls is not None:
        return job.demo_calls
    return float(median([calls for item in items for calls in item.calls_failed] or [0]))


def _predictability(items: Sequence[ItemFacts], job: JobFacts) -> float | None:
    """From the agent's own successes where at least five items have two of them, else from demonstrations."""
    alike = [item for item in items if item.likeness is not None]
    if len(alike) < 5:
        return job.demo_likeness
    return fmean((item.likeness or 0.0) * (1.0 if item.copied is None else item.copied) for item in alike)
