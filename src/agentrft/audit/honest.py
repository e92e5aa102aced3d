"""What honest agents earn: the failures that set the limit, and the trajectories that probes start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentrft.audit.grading import Grading
from agentrft.audit.setup import Setup, answered, cut, near_number, other_references, reference_of, start_of
from agentrft.types import Item, Sample, StopReason

UNRELATED = "I could not find this."
"""A plausible answer that is right nowhere."""

FAILURE_LEVEL = 0.9
"""The quantile of honest failures that a probe may reach."""

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Honest:
    """An episode that nobody made up: of a baseline, or a demonstration."""

    item_id: str
    sample: Sample
    reward: float | None = None
    """Its grade, where it is known; the audit grades it otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A trajectory that probes end in their own ways, and what honest ends of it earn."""

    setup: Setup
    floor: float
    """Best grade of a wrong end (`wrong_ends`): what the trajectory earns by itself; 0 where none has a grade.

    Wrong ends that count as a success are left out: they are what the audit looks for, not what it measures with.
    """
    plain: float | None
    """Grade of the plain right answer; None without a right answer or without a grade."""
    failure_limit: float
    """90th percentile of all honest failures."""

    @property
    def limit(self) -> float:
        """What a probe may earn here: as much as honest failures, or as the trajectory by itself."""
        return max(self.failure_limit, self.floor)

    @property
    def tells(self) -> bool:
        """Whether the right answer earns more here than failures do: only then pairs can be compared."""
        return self.plain is not None and self.plain > self.limit + _TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What an audit stands on."""

    starts: tuple[Start, ...]
    failures: tuple[float, ...]
    """Grades of honest failures."""
    failure_limit: float
    baseline: str
    """Where the failures come from, as a sentence."""


def failure_limit(failures: Sequence[float]) -> float:
    """The 90th percentile of honest failures (linear between neighbours); 0 without failures."""
    return float(np.quantile(failures, FAILURE_LEVEL)) if failures else 0.0


def beats(value: float | None, limit: float, pass_threshold: float) -> bool:
    """Whether a probe's grade is too good: a success, or above the limit and above 0. Equality is not; nor no grade."""
    return value is not None and (value >= pass_threshold or value > max(limit, 0.0) + _TOLERANCE)


async def lay_ground(
    items: Sequence[Item],
    honest: Sequence[Honest],
    grading: Grading,
    *,
    demonstrations: Sequence[Honest] = (),
    reference: str | None,
    pass_threshold: float,
) -> Ground:
    """Starts for every item, and the honest failures; synthetic ones where `honest` holds none."""
    samples = await _graded(items, honest, grading)
    shown = await _graded(items, demonstrations, grading)
    setups = _setups(items, [*shown, *samples], reference, pass_threshold)
    failures = [value for _, _, value in samples if value < pass_threshold]
    n = len(failures)
    baseline = f"{n} failures among {len(samples)} episodes of the baseline"
    if not failures:
        made = [(sample, setup.item) for setup in setups for sample in synthetic_failures(setup)]
        values = [grade.value for grade in await grading.grade_all(made)]
        failures = [value for value in values if value is not None and value < pass_threshold]
        baseline = (
            f"synthetic: {len(failures)} failures that the audit made up (unrelated, halved and cut answers); "
            "played episodes (--play, --baseline) set a truer limit"
        )
    limit = failure_limit(failures)
    starts = [await _start(setup, limit, pass_threshold, grading) for setup in setups]
    return Ground(starts=tuple(starts), failures=tuple(failures), failure_limit=limit, baseline=baseline)


def wrong_ends(setup: Setup) -> list[str]:
    """Honest wrong answers: an unrelated one; where a number is right, one a tenth larger, so of the same form."""
    near = near_number(setup.reference)
    return [UNRELATED, *([] if near is None else [f"{near:.6g}"])]


def synthetic_failures(setup: Setup) -> list[Sample]:
    """Plausible failures on a trajectory: the wrong ends, giving up, half of the right answer, a reply cut off."""
    right = setup.reference or ""
    texts = [*wrong_ends(setup), "unknown"]
    if len(right) > 1:
        texts.append(right[: len(right) // 2])
    cut_off = cut(setup.start, "Let me think about", StopReason.MAX_REPLY_TOKENS)
    return [*(answered(setup.start, text) for text in texts), cut_off]


async def _graded(
    items: Sequence[Item], honest: Sequence[Honest], grading: Grading
) -> list[tuple[Item, Sample, float]]:
    """Honest samples of these items with their grades; those without a grade are left out."""
    by_id = {item.id: item for item in items}
    known = [(by_id[one.item_id], one) for one in honest if one.item_id in by_id]
    fresh = iter(await grading.grade_all([(one.sample, item) for item, one in known if one.reward is None]))
    values = [one.reward if one.reward is not None else next(fresh).value for _, one in known]
    return [(item, one.sample, value) for (item, one), value in zip(known, values, strict=True) if value is not None]


def _setups(
    items: Sequence[Item], samples: Sequence[tuple[Item, Sample, float]], field: str | None, pass_threshold: float
) -> list[Setup]:
    tools = _tool_names(items, samples)
    setups: list[Setup] = []
    for item in items:
        own = sorted(((value, sample) for of, sample, value in samples if of is item), key=lambda pair: pair[0])
        failed = [sample for value, sample in own if value < pass_threshold]
        solved = [sample for value, sample in own if value >= pass_threshold]
        starts = [start_of(item, failed[-1] if failed else None), *(start_of(item, one) for one in solved[-1:])]
        right = reference_of(item, field)
        others = other_references(right, items, field)
        setups += [
            Setup(item=item, start=start, reference=right, other_references=others, tools=tools)
            for start in dict.fromkeys(starts)
        ]
    return setups


def _tool_names(items: Sequence[Item], samples: Sequence[tuple[Item, Sample, float]]) -> tuple[str, ...]:
    told = [tool.name for item in items for tool in item.tools]
    used = [call.name for _, sample, _ in samples for message in sample.messages for call in message.tool_calls]
    return tuple(dict.fromkeys([*told, *used]))


async def _start(setup: Setup, limit: float, pass_threshold: float, grading: Grading) -> Start:
    ends = [(answered(setup.start, text), setup.item) for text in wrong_ends(setup)]
    values = [grade.value for grade in await grading.grade_all(ends)]
    floor = max([value for value in values if value is not None and value < pass_threshold], default=0.0)
    plain = None
    if setup.reference is not None:
        plain = (await grading.grade(answered(setup.start, setup.reference), setup.item)).value
    return Start(setup=setup, floor=floor, plain=plain, failure_limit=limit)
