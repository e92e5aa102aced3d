"""When a service is left alone, and when it is asked again."""

from __future__ import annotations

import asyncio

import pytest

from agentrft.net.breaker import Breaker, BreakerOpen, BreakerState
from agentrft.testing import FakeClock


class Down(Exception):
    pass


def play(breaker: Breaker, outcomes: str) -> None:
    """`.` for a good call, `x` for a failed one."""
    for outcome in outcomes:
        try:
            with breaker.call(Down):
                if outcome == "x":
                    raise Down
        except Down:
            pass


def opened() -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    breaker = Breaker(clock)
    play(breaker, "x" * 20)
    return breaker, clock


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("x" * 19, BreakerState.CLOSED),
        ("x" * 20, BreakerState.OPEN),
        ("." * 10 + "x" * 9, BreakerState.CLOSED),
        ("." * 10 + "x" * 10, BreakerState.OPEN),  # 10 of 20
        ("." * 11 + "x" * 10, BreakerState.CLOSED),  # 10 of 21
        ("." * 11 + "x" * 11, BreakerState.OPEN),  # 11 of 22
        ("", BreakerState.CLOSED),
    ],
)
def test_it_opens_at_half_of_twenty(outcomes, state):
    breaker = Breaker(FakeClock())
    play(breaker, outcomes)
    assert breaker.state is state


def test_old_calls_do_not_count():
    clock = FakeClock()
    breaker = Breaker(clock)
    play(breaker, "x" * 19)
    clock.advance(30.1)
    play(breaker, "x")
    assert (breaker.state, breaker.counts()) == (BreakerState.CLOSED, (1, 1))


def test_while_open_nothing_goes_through():
    breaker, clock = opened()
    clock.advance(4)
    with pytest.raises(BreakerOpen, match=r"is left alone for 6.0 s") as refused, breaker.call():
        pytest.fail("the call went through")
    assert refused.value.wait_s == 6
    assert breaker.open_s == 4


def test_one_probe_decides():
    breaker, clock = opened()
    clock.advance(10)
    assert breaker.state is BreakerState.HALF_OPEN
    with breaker.call(Down), pytest.raises(BreakerOpen), breaker.call(Down):  # only one at a time
        pytest.fail("a second probe")
    assert (breaker.state, breaker.open_s, breaker.counts()) == (BreakerState.CLOSED, 0.0, (0, 0))


def test_a_failed_probe_opens_it_again():
    breaker, clock = opened()
    clock.advance(10)
    play(breaker, "x")
    assert breaker.state is BreakerState.OPEN
    clock.advance(10)
    assert (breaker.state, breaker.open_s) == (BreakerState.HALF_OPEN, 20)
    play(breaker, ".")
    assert breaker.state is BreakerState.CLOSED


async def test_a_cancelled_probe_leaves_the_place_to_another():
    breaker, clock = opened()
    clock.advance(10)

    async def hang():
        with breaker.call(Down):
            await asyncio.sleep(30)

    probing = asyncio.create_task(hang())
    await asyncio.sleep(0)
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    assert breaker.state is BreakerState.HALF_OPEN
    play(breaker, ".")
    assert breaker.state is BreakerState.CLOSED


def test_other_exceptions_are_answers():
    breaker = Breaker(FakeClock())
    for _ in range(30):
        with pytest.raises(ValueError), breaker.call(Down):
            raise ValueError
    assert breaker.counts() == (30, 0)


def test_calls_from_before_it_opened_change_nothing():
    breaker, clock = opened()
    clock.advance(1)
    late = Breaker(clock)
    with late.call(Down):  # under way while the others fail
        play(late, "x" * 20)
    assert late.state is BreakerState.OPEN
    assert breaker.state is BreakerState.OPEN
