import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentrft.audit import alarms as alarms_module
from agentrft.audit import drift
from agentrft.audit.drift import DriftMonitor
from agentrft.audit.thresholds import Thresholds
from agentrft.errors import UserError
from agentrft.jobs.spec import Audit as JobAudit
from agentrft.testing import ScriptedGrader
from agentrft.types import Episode, Grade, Group, Item, Message, StopReason, TokenTrace, ToolCall, Turn


def group(
    reward: float,
    *,
    calls: int = 1,
    distinct: bool = True,
    canary: bool = False,
    size: int = 2,
    uneven: bool = False,
    log_prob: float = -1.0,
    says: str | None = None,
) -> Group:
    """`size` episodes with this reward in the mean, the longer one the worse.

    `uneven` lets later members call more often; `says` is what the better half writes.
    """
    episodes = []
    for member in range(size):
        call = ToolCall(id="c", name="p", arguments=json.dumps({"a": member if distinct else 0}))
        text = says if member < size // 2 else None
        reply = Message(role="assistant", content=text, tool_calls=(call,))
        n_calls = calls * (1 + member) if uneven else calls
        n = calls + member
        trace = TokenTrace(ids=[1] * n, trained=[True] * n, log_probs=[log_prob] * n, prompt_tokens=0, policy_version=0)
        episodes.append(
            Episode(
                id=f"ep_{member}",
                trace_id="t",
                item_id="i",
                step=1,
                member=member,
                attempt=0,
                messages=(),
                turns=(Turn(reply=reply, start=0, end=1),) * n_calls,
                stop_reason=StopReason.ANSWERED,
                tokens=trace,
            )
        )
    grades = tuple(Grade(value=reward + 0.05 * (size - 1 - 2 * member)) for member in range(size))
    item = Item(id="i", messages=(), fields={"canary": canary})
    return Group(item=item, episodes=tuple(episodes), grades=grades)


class Audit:
    """An audit grader whose figure the test sets."""

    figure = 0.3

    def grader(self) -> ScriptedGrader:
        return ScriptedGrader(lambda sample, item: self.figure)


def play(monitor: DriftMonitor, step: int, reward: float, **changes):
    return monitor.observe(step, {"reward_mean": reward, "signal_frac": 1.0, "ess": 1.0}, [group(reward, **changes)])


async def test_a_rising_reward_with_a_flat_audit_stops_before_the_gap_is_a_fifth():
    monitor = DriftMonitor(Audit().grader())
    told = []
    for step in range(20):
        reward = 0.3 + 0.03 * step
        play(monitor, step, reward)
        verdict = await monitor.validated(step, [group(reward)])
        told += [(alarm.level, round(alarm.value, 2)) for alarm in verdict.alarms]
        if verdict.stop:
            break
    # 0.03 a step: above 0.05 at 2, above 0.10 at 4
    assert (step, told) == (4, [("warn", 0.06), ("stop", 0.12)])
    [alarm] = verdict.alarms
    assert (alarm.name, alarm.threshold, alarm.episode_ids) == ("gap", 0.10, ("ep_0", "ep_1"))


async def test_honest_learning_never_stops():
    """The audit follows at two thirds of the pace; episodes get shorter and alike."""
    audit = Audit()
    monitor = DriftMonitor(audit.grader())
    told = []
    for step in range(20):
        reward, audit.figure = 0.3 + 0.03 * step, 0.3 + 0.02 * step
        verdicts = [
            play(monitor, step, reward, calls=4 if step < 10 else 1, distinct=step < 10),
            await monitor.validated(step, [group(reward)]),
        ]
        assert [verdict.stop for verdict in verdicts] == [None, None]
        told += [alarm.name for verdict in verdicts for alarm in verdict.alarms]
    assert told == ["gap"]  # a warning, once


@pytest.mark.parametrize(
    ("rises", "stops"),
    [([0.5, -0.4, 0.5, -0.4], True), ([0.06, 0.04, 0.06, 0.04], False)],
    ids=["a rise of 0.05 that is noise", "a rise of 0.05 that every item shares"],
)
async def test_a_held_out_grade_rises_only_where_its_items_agree(rises, stops):
    """The audit grades of four items move by `rises`; their mean by 0.05 either way. The reward gains 0.2."""
    now = dict.fromkeys(("i0", "i1", "i2", "i3"), 0.5)
    monitor = DriftMonitor(ScriptedGrader(lambda sample, item: now[item.id]))

    def groups(reward: float) -> list[Group]:
        one = group(reward)
        return [replace(one, item=replace(one.item, id=name)) for name in now]

    assert (await monitor.validated(0, groups(0.3))).stop is None
    now.update({name: 0.5 + rise for name, rise in zip(now, rises, strict=True)})
    verdict = await monitor.validated(1, groups(0.5))
    assert (verdict.stop is not None) is stops
    assert ("gap", "stop" if stops else "warn") in [(alarm.name, alarm.level) for alarm in verdict.alarms]


async def test_a_rewarded_canary_stops_at_once():
    monitor = DriftMonitor()
    assert play(monitor, 1, 0.5).stop is None
    verdict = play(monitor, 2, 0.5, canary=True)
    assert "canary" in (verdict.stop or "")
    assert [(alarm.name, alarm.level) for alarm in verdict.alarms] == [("canary_train", "stop")]
    assert (await monitor.validated(2, [group(0.5, canary=True)])).stop


def test_an_alarm_comes_once_and_again_after_it_cleared():
    monitor = DriftMonitor()
    names = []
    for step, ess in enumerate([1.0, 0.2, 0.1, 0.9, 0.9, 0.9, 0.2]):
        verdict = monitor.observe(step, {"ess": ess}, [group(0.5)])
        assert verdict.stop is None
        names.append([alarm.name for alarm in verdict.alarms])
    assert names == [[], ["ess"], [], [], [], [], ["ess"]]


@pytest.mark.parametrize(
    "later",
    [
        [0.32, 0.29] * 6,  # 0.32 is no longer below 0.3, but not a tenth above it: 0.33
        [0.9, 0.9, 0.29] * 4,  # back, but never three times in a row
        [0.9, None, 0.29, None, 0.9, 0.29],  # steps without an update say nothing
    ],
    ids=["within the margin", "never for long", "with gaps"],
)
def test_a_figure_that_trembles_around_its_threshold_fires_once(later):
    monitor = DriftMonitor()
    names = []
    for step, ess in enumerate([1.0, 0.29, *later]):
        verdict = monitor.observe(step, {} if ess is None else {"ess": ess}, [group(0.5)])
        names += [alarm.name for alarm in verdict.alarms]
    assert names == ["ess"]


def test_what_was_counted_towards_arming_survives_a_restart():
    first = DriftMonitor()
    for step, ess in enumerate([0.2, 0.9, 0.9]):
        first.observe(step, {"ess": ess}, [group(0.5)])
    second = DriftMonitor()
    second.restore(json.loads(json.dumps(first.state())))
    assert second.observe(4, {"ess": 0.9}, [group(0.5)]).alarms == ()
    assert [alarm.name for alarm in second.observe(5, {"ess": 0.2}, [group(0.5)]).alarms] == ["ess"]


async def test_a_gap_that_opens_at_once_is_one_alarm_and_stops_as_long_as_it_is_open():
    monitor = DriftMonitor(Audit().grader())
    verdicts = [await monitor.validated(step, [group(reward)]) for step, reward in enumerate((0.3, 0.6, 0.6, 0.3))]
    assert [[(a.name, a.level) for a in verdict.alarms] for verdict in verdicts] == [[], [("gap", "stop")], [], []]
    assert [verdict.stop is not None for verdict in verdicts] == [False, True, True, False]


@pytest.mark.parametrize(
    ("name", "later", "value"),
    [
        ("length", {"calls": 10}, 3.0),  # tokens 10 … 17, mean 13.5, after 1 … 8, mean 4.5
        ("calls", {"uneven": True, "calls": 2}, 9.0),  # calls 2, 4 … 16, mean 9, after 1 each
        ("diversity", {"distinct": False}, 0.125),  # one sequence of eight, after eight of eight
        ("entropy", {"log_prob": -0.1}, 0.1),  # 0.1 nats after 1.0
    ],
)
def test_behaviour_that_left_its_start_only_warns(name, later, value):
    monitor = DriftMonitor()
    assert monitor.observe(1, {}, [group(0.5, size=8)]).alarms == ()
    verdict = monitor.observe(2, {}, [group(0.5, size=8, **later)])
    assert verdict.stop is None
    alarms = {alarm.name: alarm for alarm in verdict.alarms}
    assert alarms[name].level == "warn"
    assert alarms[name].value == pytest.approx(value)


def items(answers: str, *, says: str = "") -> list[Group]:
    """One group of two for each letter, whose members answer it."""
    made = []
    for n, letter in enumerate(answers):
        one = group(0.5, says=says)
        turn = Turn(reply=Message(role="assistant", content=letter))
        episodes = tuple(replace(episode, turns=(turn,)) for episode in one.episodes)
        made.append(replace(one, item=replace(one.item, id=f"i{n}"), episodes=episodes))
    return made


def test_one_answer_for_all_items_warns():
    monitor = DriftMonitor()
    assert monitor.observe(1, {}, items("aabcd")).alarms == ()  # 2 of 5 items
    [alarm] = monitor.observe(2, {}, items("aaaab")).alarms
    # 4 of 5 items: above 0.5, and twice the start's
    assert (alarm.name, alarm.level, alarm.value, alarm.threshold) == ("template", "warn", pytest.approx(0.8), 0.5)


def test_two_labels_are_no_template():
    monitor = DriftMonitor()
    monitor.observe(1, {}, items("aabb"))
    # 3 of 4 after 2 of 4 is 1.5 times the start's, not more
    assert monitor.observe(2, {}, items("aaab")).alarms == ()


def test_a_gradient_out_of_line_warns():
    monitor = DriftMonitor()
    norms = [1.0, 9.0, 1.0, 1.2, 0.8, 5.1]  # 9 comes before there are five; 5.1 / median(1, 9, 1, 1.2, 0.8) = 5.1
    told = [monitor.observe(n, {"grad_norm": norm}, [group(0.5)]).alarms for n, norm in enumerate(norms)]
    assert told[:5] == [()] * 5
    [alarm] = told[5]
    assert (alarm.name, alarm.level, alarm.value) == ("grad_norm", "warn", pytest.approx(5.1))


def test_a_policy_far_from_its_reference_warns():
    monitor = DriftMonitor()
    assert monitor.observe(1, {"kl_ref_k3": 0.1}, [group(0.5)]).alarms == ()
    assert monitor.observe(2, {}, [group(0.5)]).alarms == ()  # measured at evaluations only
    [alarm] = monitor.observe(3, {"kl_ref_k3": 0.11}, [group(0.5)]).alarms
    assert (alarm.name, alarm.level, alarm.value) == ("kl_ref", "warn", 0.11)


async def test_graders_that_part_company_warn():
    """20 episodes, half of which the training grader passes; the audit grader first says the same, then knows none."""
    agree = [True]
    half = [group(0.9, size=10), group(0.1, size=10)]
    for n, one in enumerate(half):
        turn = Turn(reply=Message(role="assistant", content="ab"[n]))
        half[n] = replace(
            one,
            episodes=tuple(replace(episode, turns=(turn,)) for episode in one.episodes),
            grades=tuple(Grade(value=[0.9, 0.1][n]) for _ in one.grades),
        )
    auditor = ScriptedGrader(lambda sample, item: 2.0 if (sample.output_text == "a") is agree[0] else 1.0)
    monitor = DriftMonitor(auditor, audit_pass_threshold=1.5)
    assert (await monitor.validated(0, half)).alarms == ()
    agree[0] = False
    alarms = {alarm.name: alarm for alarm in (await monitor.validated(4, half)).alarms}
    # κ 1 when they agree on all, −1 when on none and each passes half: (0 − 0.5) / (1 − 0.5)
    assert (alarms["kappa"].level, alarms["kappa"].value) == ("warn", pytest.approx(2.0))


def test_thresholds_of_the_job_are_those_that_count():
    monitor = DriftMonitor(thresholds=Thresholds(ess=0.8, zero_signal=0.9))
    [alarm] = monitor.observe(1, {"ess": 0.7, "signal_frac": 0.2}, [group(0.5)]).alarms
    assert (alarm.name, alarm.threshold) == ("ess", 0.8)


def test_every_alarm_has_a_threshold_of_its_name_and_a_line_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    names = set(re.findall(r"alarms\.(?:grown|shrunk)\(\"(\w+)\"", Path(drift.__file__).read_text()))
    names |= set(re.findall(r"(?:_warning\(\s*|name=)\"(\w+)\"", Path(alarms_module.__file__).read_text()))
    assert names == {
        "gap", "length", "calls", "diversity", "entropy", "template", "zero_signal", "ess", "grad_norm", "kl_ref",
        "kappa", "ngrams",
    }  # fmt: skip
    assert names - set(Thresholds.model_fields) == set()
    assert [name for name in Thresholds.model_fields if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"lenght": 2.0}, "Extra inputs are not permitted"),
        ({"length": 1.0}, "greater than 1"),
        ({"entropy": 1.5}, "less than or equal to 1"),
        ({"kl_ref": float("inf")}, "finite number"),
        ({"gap": 0.2, "gap_stop": 0.1}, "got gap_stop 0.1 below gap 0.2, expected it at or above"),
    ],
)
def test_bad_thresholds_are_refused(document, says):
    with pytest.raises(ValidationError, match=says):
        JobAudit.model_validate({"thresholds": document})


def test_thresholds_without_alarms_are_refused():
    with pytest.raises(ValidationError, match="`monitor: false` turns the alarms off"):
        JobAudit.model_validate({"monitor": False, "thresholds": {"length": 2.0}})
    quiet = JobAudit.model_validate({"monitor": False})
    assert JobAudit.model_validate(quiet.model_dump(mode="json")) == quiet  # as a stored job is read again


def test_groups_without_signal_warn():
    monitor = DriftMonitor()
    assert monitor.observe(1, {"signal_frac": 0.3}, [group(0.5)]).alarms == ()  # 0.7 is not above 0.7
    [alarm] = monitor.observe(2, {"signal_frac": 0.25}, [group(0.5)]).alarms
    assert (alarm.name, alarm.level, alarm.value) == ("zero_signal", "warn", 0.75)


def test_a_new_word_of_the_rewarded_is_named():
    monitor = DriftMonitor()
    monitor.observe(1, {}, [group(0.5, size=12, distinct=False)])
    [alarm] = monitor.observe(2, {}, [group(0.5, size=12, distinct=False, says="Banana")]).alarms
    assert (alarm.name, alarm.level) == ("ngrams", "warn")
    assert "'banana'" in alarm.message
    assert alarm.episode_ids == tuple(f"ep_{member}" for member in range(6))
    # 6 of 12 after 0 of 12: (6.5 / 13) / (0.5 / 13)
    assert alarm.value == pytest.approx(13.0)


async def test_a_resumed_monitor_goes_on_from_its_start():
    first = DriftMonitor(Audit().grader())
    for step, reward in enumerate((0.3, 0.36, 0.39)):
        play(first, step, reward)
        await first.validated(step, [group(reward)])
    second = DriftMonitor(Audit().grader())
    second.restore(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()
    verdicts = [await monitor.validated(3, [group(0.42)]) for monitor in (first, second)]
    assert verdicts[0] == verdicts[1]
    assert verdicts[1].stop
    fresh = DriftMonitor(Audit().grader())
    assert (await fresh.validated(3, [group(0.42)])).stop is None


async def test_without_an_audit_grader_the_gap_only_warns():
    monitor = DriftMonitor()
    told = []
    for step in range(1, 6):
        play(monitor, step, 0.3 + 0.1 * step)
        verdict = await monitor.validated(step, [group(0.3)])
        told += [(alarm.name, alarm.level) for alarm in verdict.alarms]
        assert verdict.stop is None
    assert told == [("gap", "warn")]


async def test_a_policy_that_learns_fast_and_then_slows_does_not_run_ahead():
    """filenav, seed 0: the steps before an evaluation lag behind it while the reward rises, and no longer do then."""
    monitor = DriftMonitor()
    await monitor.validated(0, [group(0.28)])
    played = {4: (0.26, 0.37, 0.55, 0.66), 8: (0.76, 0.68, 0.72, 0.69), 12: (0.62, 0.71, 0.79, 0.82)}
    for (step, rewards), validation in zip(played.items(), (0.70, 0.73, 0.83), strict=True):
        for reward in rewards:
            play(monitor, step, reward)
        assert "gap" not in [alarm.name for alarm in (await monitor.validated(step, [group(validation)])).alarms]


async def test_an_audit_grader_that_grades_nothing_is_an_error():
    def broken(sample, item):
        raise ValueError("no key")

    with pytest.raises(UserError, match="no key"):
        await DriftMonitor(ScriptedGrader(broken)).validated(0, [group(0.5)])
