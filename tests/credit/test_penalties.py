import pytest

from agentrft.credit import reward_of
from agentrft.types import Grade, StopReason


@pytest.mark.parametrize(
    ("grade", "stop_reason", "reward"),
    [
        (0.8, StopReason.ANSWERED, 0.8),
        (-0.3, StopReason.ANSWERED, -0.3),
        (0.8, StopReason.MALFORMED, 0.8),  # not cut off by a limit: whatever the grader thinks of it
        (0.8, StopReason.MAX_TURNS, 0.0),
        (0.8, StopReason.MAX_REPLY_TOKENS, 0.0),
        (0.8, StopReason.MAX_EPISODE_TOKENS, 0.0),
        (0.8, StopReason.MAX_TIME, 0.0),
        (-0.3, StopReason.MAX_TURNS, -0.3),
    ],
)
def test_truncation_never_pays(grade, stop_reason, reward):
    assert reward_of(Grade(value=grade), stop_reason) == reward


def test_no_grade_is_no_reward_not_zero():
    assert reward_of(Grade(value=None, reason="judge unreadable"), StopReason.ANSWERED) is None
    assert reward_of(Grade(value=None, reason="fault"), StopReason.MAX_TURNS) is None
