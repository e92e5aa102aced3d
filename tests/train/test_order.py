from collections import Counter

from agentrft.train.order import shuffled, step_seats, stream
from agentrft.types import Item, Message


def items(n: int) -> list[Item]:
    return [Item(id=f"row-{i}", messages=(Message(role="user", content="?"),)) for i in range(n)]


def test_an_order_is_fixed_for_ever():
    # for i in 0 1 2 3 4; do printf "7/pass/0/$i" | sha256sum; done, by digest: 4 1 0 2 3
    assert shuffled(5, "7/pass/0") == [4, 1, 0, 2, 3]
    assert shuffled(5, "8/pass/0") != shuffled(5, "7/pass/0")


def test_a_stream_is_pass_after_pass_wherever_it_is_cut():
    whole = stream(5, seed=7, start=0, count=15)
    assert [sorted(whole[i : i + 5]) for i in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert whole[:5] != whole[5:10]  # every pass has its own order
    assert [index for start in range(0, 15, 3) for index in stream(5, seed=7, start=start, count=3)] == whole
    assert stream(5, seed=7, start=4, count=0) == []


def test_steps_go_through_all_items_before_any_comes_again():
    seats = [step_seats(items(12), seed=0, step=step, groups=4, limit=4) for step in (1, 2, 3)]
    assert Counter(seat.item.id for step in seats for seat in step) == Counter(item.id for item in items(12))


def test_refills_are_other_items_in_an_order_of_the_steps_own():
    one = step_seats(items(12), seed=0, step=1, groups=4, limit=12)
    assert len({seat.item.id for seat in one}) == 12
    assert [seat.index for seat in one] == list(range(12))
    assert one[:4] == step_seats(items(12), seed=0, step=1, groups=4, limit=4)
    later = step_seats(items(12), seed=0, step=4, groups=4, limit=12)  # the second pass
    assert [seat.item.id for seat in later[4:]] != [seat.item.id for seat in one[4:]]


def test_when_items_run_out_they_come_again_as_another_attempt():
    seats = step_seats(items(2), seed=0, step=1, groups=3, limit=6)
    assert len({(seat.item.id, seat.attempt) for seat in seats}) == 6
    assert Counter(seat.item.id for seat in seats) == {"row-0": 3, "row-1": 3}
