import json

import pytest

from agentrft.audit.drift import DriftMonitor
from agentrft.errors import UserError
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
    for step, ess in enumerate([1.0, 0.2, 0.1, 0.9, 0.2]):
        verdict = monitor.observe(step, {"ess": ess}, [group(0.5)])
        assert verdict.stop is None
        names.append([alarm.name for alarm in verdict.alarms])
    assert names == [[], ["ess"], [], [], ["ess"]]


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


async def test_an_audit_grader_that_grades_nothing_is_an_error():
    def broken(sample, item):
        raise ValueError("no key")

    with pytest.raises(UserError, match="no key"):
        await DriftMonitor(ScriptedGrader(broken)).validated(0, [group(0.5)])
