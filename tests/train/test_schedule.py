import pytest

from agentrft.train.schedule import rate_at


def rates(decay, warmup_steps=3, total_steps=6) -> list[float]:
    options = {"peak": 3.0, "warmup_steps": warmup_steps, "total_steps": total_steps, "decay": decay}
    return [rate_at(step, **options) for step in range(1, total_steps + 1)]


def test_constant_after_a_linear_rise():
    assert rates("constant") == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0, 3.0])


def test_linear_decay_heads_for_a_tenth():
    # the rise times 1 − 0.9·(step − 1)/6 = 1, 0.85, 0.7, 0.55, 0.4, 0.25
    assert rates("linear") == pytest.approx([1.0, 1.7, 2.1, 1.65, 1.2, 0.75])


def test_without_warm_up_the_first_step_has_the_peak():
    assert rates("constant", warmup_steps=0) == [3.0] * 6
