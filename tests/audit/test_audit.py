"""The rules: percentile, ties, pairs, permutation, determinism, order, padding, granularity."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from agentrft.audit import AuditLine, AuditPlan, AuditReport, Honest, audit
from agentrft.audit.honest import beats, failure_limit
from agentrft.audit.setup import is_near, is_right
from agentrft.types import Grade, Item, Message, Sample

Answer = Callable[[Sample, Item], float | None]


class Scored:
    """A grader from a function; None is no grade."""

    def __init__(self, score: Answer) -> None:
        self.score = score

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        value = self.score(sample, item)
        return Grade(value=None, reason="cannot say") if value is None else Grade(value=value)

    async def close(self) -> None:
        """Nothing to close."""


ITEMS = [
    Item(id=f"item-{n}", messages=(Message(role="user", content="Which city?"),), fields={"answer": city})
    for n, city in enumerate(("Oslo", "Lima", "Cairo", "Quito"))
]


def exact(sample: Sample, item: Item) -> float:
    return float(sample.output_text == item.fields["answer"])


async def report(score: Answer, **plan: object) -> AuditReport:
    return await audit(AuditPlan(**{"items": ITEMS, "pass_threshold": 0.5, **plan}), Scored(score))


async def line(name: str, score: Answer, **plan: object) -> AuditLine:
    return next(one for one in (await report(score, **plan)).lines if one.name == name)


def test_the_limit_is_the_90th_percentile_of_honest_failures() -> None:
    # Eleven failures 0.0, 0.01 … 0.10: position 0.9 × 10 = 9, the tenth value.
    assert failure_limit([n / 100 for n in range(11)]) == pytest.approx(0.09)
    # Three: position 0.9 × 2 = 1.8, so 0.1 + 0.8 × (0.4 − 0.1).
    assert failure_limit([0.4, 0.0, 0.1]) == pytest.approx(0.34)
    assert failure_limit([]) == 0.0


@pytest.mark.parametrize(
    ("value", "limit", "too_good"),
    [
        (0.2, 0.2, False),  # equal to honest failures
        (0.21, 0.2, True),
        (0.5, 0.9, True),  # a success, whatever failures earn
        (0.0, -1.0, False),  # above the limit, but nothing
        (0.1, -1.0, True),
        (None, 0.0, False),  # no grade is safe
    ],
)
def test_what_is_too_good(value: float | None, limit: float, too_good: bool) -> None:
    assert beats(value, limit, pass_threshold=0.5) is too_good


async def test_the_baseline_sets_the_limit() -> None:
    def partial(sample: Sample, item: Item) -> float:
        return exact(sample, item) or (0.3 if sample.output_text == ":" else 0.0)

    failures = [Honest(item_id="item-0", sample=Sample(output_text="?"), reward=0.1 * n) for n in range(5)]
    generous = await line("colon", partial, honest=failures)  # 0.9 × 4 = 3.6: 0.3 + 0.6 × 0.1 = 0.36
    assert (generous.verdict, generous.worst, generous.limit) == ("safe", 0.3, pytest.approx(0.36))
    strict = await line("colon", partial, honest=failures[:3])  # 0.9 × 2 = 1.8: 0.1 + 0.8 × 0.1 = 0.18
    assert (strict.verdict, strict.worst, strict.limit) == ("failed", 0.3, pytest.approx(0.18))
    assert (await line("colon", partial)).verdict == "failed"


async def test_where_failures_come_from_is_said() -> None:
    failures = [Honest(item_id="item-0", sample=Sample(output_text="?"), reward=0.0)]
    assert (await report(exact, honest=failures)).baseline == "1 failures among 1 episodes of the baseline"
    # Per item: unrelated, unknown, half of the right answer, cut off.
    assert (await report(exact)).baseline.startswith("synthetic: 16 failures that the audit made up")


async def test_a_demonstration_gives_a_start_and_never_a_failure() -> None:
    call = Message(role="tool", content="it is Oslo", tool_call_id="call_0_0")
    sample = Sample(output_text="Oslo", messages=(*ITEMS[0].messages, call, Message(role="assistant", content="Oslo")))

    def asks_for_evidence(sample: Sample, item: Item) -> float:
        return exact(sample, item) * any(message.role == "tool" for message in sample.messages)

    shown = await report(asks_for_evidence, demonstrations=[Honest(item_id="item-0", sample=sample)])
    by_name = {line.name: line for line in shown.lines}
    assert shown.baseline.startswith("synthetic")
    assert by_name["echo_tool_result"].evidence == "it is Oslo"
    # The plain right answer earns 1 there, so the pair says something.
    assert (by_name["negation"].verdict, by_name["negation"].detail) == ("safe", "")
    assert "says little" in (await line("negation", asks_for_evidence)).detail


async def test_a_negation_must_earn_less_than_the_plain_answer() -> None:
    def keyword(sample: Sample, item: Item) -> float:
        return 0.9 * (item.fields["answer"] in sample.output_text)

    def shorter_is_better(sample: Sample, item: Item) -> float:
        return keyword(sample, item) * min(1.0, 5 / max(1, len(sample.output_text)))

    assert (await line("negation", keyword)).verdict == "failed"
    assert (await line("negation", shorter_is_better)).verdict == "safe"


async def test_right_answers_of_other_items_must_fall_to_chance() -> None:
    cities = {item.fields["answer"] for item in ITEMS}
    wrong = await line("permutation", lambda sample, item: float(sample.output_text in cities))
    # Shuffled answers earn 1, as the right ones do; the limit is 0 + 0.25 × (1 − 0).
    assert (wrong.verdict, wrong.worst, wrong.limit) == ("failed", 1.0, 0.25)
    right = await line("permutation", exact)
    assert (right.verdict, right.worst, right.limit) == ("safe", 0.0, 0.25)
    assert right.detail == "means: shuffled 0.000, right 1.000, chance 0.000"


async def test_the_permutation_is_seeded() -> None:
    def by_city(sample: Sample, item: Item) -> float:
        return exact(sample, item) or 0.1 * (sample.output_text == "Lima")

    first, again = [await line("permutation", by_city, seed=3) for _ in range(2)]
    assert first == again


async def test_different_grades_for_the_same_sample_fail_but_with_a_judge_they_are_a_warning() -> None:
    def moody() -> Answer:
        turn = itertools.count()
        return lambda sample, item: exact(sample, item) - next(turn) % 2 * 0.1

    found = await line("determinism", moody())
    assert found.verdict == "failed"
    assert found.detail in ("grades: -0.1, 0, -0.1", "grades: 0, -0.1, 0")


async def test_a_judge_is_measured_by_its_agreement_with_itself() -> None:
    def noisy(noise: float) -> Answer:
        turn = itertools.count()
        return lambda sample, item: exact(sample, item) + noise * (next(turn) % 3)

    # Right answers get 1, 1.01, 1.02 and wrong ones 0, 0.01, 0.02: next to none of the variance is within a sample.
    close = await line("determinism", noisy(0.01), asks_model=True)
    assert (close.verdict, close.detail) == ("safe", "ICC 1.00 of 3 gradings, 8 samples")
    # 0, 1, 2 and 1, 2, 3 in 4 samples each: MSB 6/7, MSW 1, so (6/7 − 1) / (6/7 + 2) = −0.05
    apart = await line("determinism", noisy(1.0), asks_model=True)
    assert apart.verdict == "warning"
    assert apart.detail.startswith("ICC -0.05 of 3 gradings, 8 samples; grades: ")
    assert "average three gradings" in apart.change
    same = await line("determinism", lambda sample, item: 0.5, asks_model=True)
    assert (same.verdict, same.detail) == ("safe", "8 samples with grades, all alike: no ICC")
    one = await line("determinism", lambda sample, item: exact(sample, item) or None, asks_model=True)
    assert one.detail == "4 samples with grades, all alike: no ICC"


class InGroups(Scored):
    """Also grades several at once, by a function of the place in the group and the grade alone."""

    def __init__(self, score: Answer, by_place: Callable[[int, float], float]) -> None:
        super().__init__(score)
        self.by_place = by_place
        self.sizes: list[int] = []

    async def grade_group(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        self.sizes.append(len(samples_G))
        alone = [await self.grade(sample, item, "t") for sample in samples_G]
        return [
            grade if grade.value is None else replace(grade, value=self.by_place(place, grade.value))
            for place, grade in enumerate(alone)
        ]


async def test_a_group_grader_gets_groups_of_one_item_and_the_same_verdicts() -> None:
    plan = AuditPlan(items=ITEMS, pass_threshold=0.5)
    grader = InGroups(exact, lambda place, value: value)
    found = await audit(plan, grader)
    # The detail of `hostile_length` says how long it took.
    seen, alone = (
        [(line.name, line.verdict, line.worst) for line in one.lines] for one in (found, await report(exact))
    )
    assert seen == alone
    assert 1 < max(grader.sizes) <= 16


async def test_grades_that_depend_on_company_fail_on_order() -> None:
    grader = InGroups(exact, lambda place, value: value - 0.1 * (place > 0))
    found = {line.name: line for line in (await audit(AuditPlan(items=ITEMS, pass_threshold=0.5), grader)).lines}
    assert (found["order"].verdict, found["order"].detail) == ("failed", "grades: 0, 0, 0, -0.1")
    assert found["determinism"].verdict == "safe"  # alone it always says the same


async def test_right_answers_must_pass_where_that_is_asked_for() -> None:
    def misses_lima(sample: Sample, item: Item) -> float:
        return exact(sample, item) * (0.4 if sample.output_text == "Lima" else 1.0)

    assert "reference" not in {line.name for line in (await report(misses_lima)).lines}
    found = await line("reference", misses_lima, positive_control=True)
    assert (found.verdict, found.worst, found.limit, found.item) == ("failed", 0.4, 0.5, "item-1")
    assert found.evidence == "Lima"
    assert found.detail == "1 of 4 right answers do not pass, the worst one without any tool call before it"
    passing = await line("reference", exact, positive_control=True)
    assert (passing.verdict, passing.detail) == ("safe", "4 right answers pass")
    bare = [replace(item, fields={}) for item in ITEMS]
    assert (await line("reference", lambda s, i: 0.0, positive_control=True, items=bare)).verdict == "skipped"


async def test_a_right_answer_passes_on_its_best_trajectory() -> None:
    tool = Message(role="tool", content="it is Oslo", tool_call_id="call_0_0")
    sample = Sample(output_text="Oslo", messages=(*ITEMS[0].messages, tool, Message(role="assistant", content="Oslo")))

    def asks_for_evidence(sample: Sample, item: Item) -> float:
        return exact(sample, item) * any(message.role == "tool" for message in sample.messages)

    # Two trajectories: the prompt alone, where the failure ended, and the one that was solved.
    failure = Honest(item_id="item-0", sample=Sample(output_text="?", messages=ITEMS[0].messages))
    plan = {"items": ITEMS[:1], "positive_control": True, "honest": [failure, Honest(item_id="item-0", sample=sample)]}
    assert (await line("reference", asks_for_evidence, **plan)).verdict == "safe"


async def test_a_grader_that_remembers_fails_on_order() -> None:
    seen: list[str] = []

    def remembers(sample: Sample, item: Item) -> float:
        if seen[-1:] != [item.id]:
            seen.append(item.id)
        return exact(sample, item) * (0.9 if seen[-2:-1] == ["item-0"] else 1.0)

    assert (await line("order", remembers)).verdict == "failed"
    assert (await line("order", exact)).verdict == "safe"


async def test_padding_must_not_pay() -> None:
    found = await line("padding", lambda sample, item: exact(sample, item) or 0.001 * len(sample.output_text))
    assert found.verdict == "failed"
    # "I could not find this." has 22 characters, 23 with a line end.
    assert (found.worst, found.limit) == (pytest.approx(0.023), pytest.approx(0.022))
    assert (await line("padding", exact)).verdict == "safe"


async def test_two_grades_are_effectively_binary() -> None:
    binary = await line("granularity", exact)
    assert (binary.verdict, binary.detail) == ("warning", "2 distinct")
    assert "0.9 q + 0.1 p q0" in binary.change
    three = await line(
        "granularity", lambda sample, item: exact(sample, item) or 0.1 * (sample.output_text == "Solution")
    )
    assert (three.verdict, three.detail) == ("safe", "3 distinct")


async def test_no_grade_is_safe_and_shown_but_a_grader_without_grades_fails() -> None:
    def deaf(sample: Sample, item: Item) -> float | None:
        return None

    assert (await line("colon", deaf)).verdict == "safe"
    assert (await line("colon", deaf)).detail == "no grade: cannot say"
    assert (await line("graded", deaf)).verdict == "failed"
    assert not (await report(deaf)).passed


async def test_what_a_grader_raises_is_no_grade() -> None:
    def broken(sample: Sample, item: Item) -> float:
        if sample.output_text == ":":
            raise KeyError("colon")
        return exact(sample, item)

    assert (await line("colon", broken)).detail == "no grade: the grader raised KeyError: 'colon'"


async def test_a_wrong_answer_that_counts_as_a_success_is_named() -> None:
    found = await line("wrong_answer", lambda sample, item: max(exact(sample, item), 0.5 * bool(sample.output_text)))
    assert (found.verdict, found.worst, found.limit) == ("failed", 0.5, 0.5)


@pytest.mark.parametrize(("pays_near", "verdict"), [(0.3, "safe"), (0.6, "failed")])
async def test_a_number_nearer_than_honest_wrong_ones_may_earn_more_but_not_pass(
    pays_near: float, verdict: str
) -> None:
    """166.6 and 173.94 are 4 % apart; honest wrong ends are 10 % off."""

    def by_distance(sample: Sample, item: Item) -> float:
        try:
            error = abs(float(sample.output_text) / float(str(item.fields["answer"])) - 1)
        except ValueError:
            return 0.0
        return 1.0 if error < 1e-3 else max(0.0, pays_near * (1 - 2 * error))

    items = [
        replace(one, fields={"answer": n}) for one, n in zip(ITEMS, ("166.6", "173.94", "9.5", "800"), strict=True)
    ]
    found = await line("other_reference", by_distance, items=items)
    assert (found.verdict, found.worst) == (verdict, pytest.approx(pays_near * (1 - 2 * (1 - 166.6 / 173.94))))
    far = await line("other_reference", lambda sample, item: 0.4 * (sample.output_text == "9.5"), items=items)
    assert far.verdict == "failed"


@pytest.mark.parametrize(
    ("text", "reference", "near"),
    [
        ("157.3", "166.6", True), ("149", "166.6", False), ("4", "3", True), ("-110", "-100", True),
        ("90", "-100", False), ("Oslo", "3", False), ("3", "Oslo", False), ("3", None, False),
    ],
)  # fmt: skip
def test_what_is_near(text: str, reference: str | None, near: bool) -> None:
    assert is_near(text, reference) is near


async def test_the_report_is_json() -> None:
    document = json.loads(json.dumps((await report(exact)).to_json()))
    assert (document["schema"], document["passed"], document["n_items"]) == (1, True, 4)
    assert set(document["lines"][0]) >= {"name", "tries", "verdict", "worst", "item", "evidence", "change"}


async def test_without_items_there_is_nothing_to_audit() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        await report(exact, items=[])


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [("oslo ", "Oslo", True), ("4.0", "4", True), ("４", "4", False), ("nan", "nan ", True), ("", None, False)],
)
def test_what_is_the_right_answer_is_no_probe(text: str, reference: str | None, right: bool) -> None:
    assert is_right(text, reference) is right
