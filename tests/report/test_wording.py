import math

from agentrft.report.wording import bounds, duration, gain, stop_words
from agentrft.stats import Interval
from agentrft.types import StopReason


def test_intervals_have_real_signs() -> None:
    assert gain(Interval(mean=-0.2, low=-0.31, high=0.004, n_items=3, n_episodes=6)) == "−0.20 [−0.31, +0.00]"
    assert bounds(Interval(mean=0.5, low=-math.inf, high=math.inf, n_items=1, n_episodes=1)) == "[−∞, ∞]"


def test_durations_read_naturally() -> None:
    assert [duration(s) for s in (0.4, 48, 252.4, 3900)] == ["0 s", "48 s", "4 min 12 s", "1 h 05 min"]


def test_every_stop_reason_has_words() -> None:
    assert all("_" not in stop_words(reason.value) for reason in StopReason)
    assert all(stop_words(r.value) != r.value for r in StopReason if r not in (StopReason.ANSWERED,))
